"""A latent network of any base family: the base's folder says which."""

from typing import Any

import torch

from geometry.errors import InputError
from lightning_modules.networks.base_files import Base
from lightning_modules.networks.codec import VaePrecision
from lightning_modules.networks.compilation import Compilation
from lightning_modules.networks.conditioning import encode_empty_prompt, read_conditioning
from lightning_modules.networks.denoiser import InputMode
from lightning_modules.networks.family import Family
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.networks.lora import LoRA
from lightning_modules.networks.noise import NoiseKind
from lightning_modules.networks.pretrained import load_weights
from lightning_modules.networks.pretrained_base import check_base
from lightning_modules.networks.quantization import Quantization, check_quantization
from lightning_modules.networks.sequence_outputs import SequenceOutputs
from lightning_modules.networks.widening import check_output, fit_first_layer


class PretrainedNetwork(LatentNetwork):
    """An image generator or editor of any known family, asked once for the clean latent, conditioned on the image.

    The family is that of the pipeline that the base's model_index.json names: each is a folder in
    ``lightning_modules/networks``. The text encoders are needed once, for the empty prompt, and not kept; or a small
    file stands for them.

    Args:
        base: Folder in the diffusers layout, or hub id such as stabilityai/stable-diffusion-3.5-medium.
        input_mode: What the denoiser sees: concatenated is image latent and noisy latent, channel by channel, for
            which its first layer is widened; sequence gives an editor the image as it was trained to see it, as further
            tokens; image is the image latent alone; residual is the image latent alone, from which the output is
            subtracted.
        noise: What takes the place of the noisy latent where the denoiser sees one: zeros, gaussian or pyramid
            (multi-resolution).
        timestep: Timestep of the single step; by default that of pure noise, 1000 in flow matching.
        conditioning: File with what the denoiser is given for the empty prompt, written by
            ``onestep conditioning``. By default conditioning.safetensors in the base's
            folder; where there is none, the base's own encoders compute it.
        guidance: Guidance scale that a distilled denoiser is told (FLUX.1); by default what its family uses.
        checkpointing: Recompute the denoiser's activations in the backward pass to save memory.
        decoder_checkpointing: Recompute the VAE decoder's activations in the backward pass to save memory.
        lora: Train low-rank adapters in place of the denoiser's own weights, for instance {rank: 16}; by default, all
            weights train. A first layer that was widened trains in any case.
        quantization: Keep the denoiser's frozen weights in 4 bits: nf4, through bitsandbytes, for the linear layers of
            its repeated blocks. It needs lora, and pip install -e '.[quantized]'. By default, they stay in float32.
        train_decoder: Train the VAE decoder along with the denoiser; the checkpoint then holds it, too.
        vae_precision: Precision in which the frozen parts of the VAE are kept and computed: float32 or bfloat16. A
            decoder that trains stays in float32.
        channels_last: Lay weights and activations out channel by channel, which suits convolutions.
        compile: Let torch.compile compile denoiser, encoder and decoder when they are first used, for instance
            {regions: blocks}; by default, they run as they are.
        outputs: Names of two outputs of an editor that sees the image as further tokens (input_mode: sequence), such
            as [depth, normals]: what it says at the noisy latent's tokens, and at the image's, in one evaluation. By
            default a single one, of the noisy latent.

    Raises:
        InputError: The base cannot be had, lacks a part, is of no known family, or does not fit the settings.
    """

    def __init__(
        self,
        base: str,
        input_mode: InputMode = "concatenated",
        noise: NoiseKind = "zeros",
        timestep: float | None = None,
        conditioning: str | None = None,
        guidance: float | None = None,
        checkpointing: bool = False,
        decoder_checkpointing: bool = False,
        lora: LoRA | None = None,
        quantization: Quantization | None = None,
        train_decoder: bool = False,
        vae_precision: VaePrecision = "float32",
        channels_last: bool = False,
        compile: Compilation | None = None,
        outputs: list[str] | None = None,
    ) -> None:
        compiled = None if compile is None else compile.parts
        is_compiled = compile is not None and (compiled is None or not {*compiled} <= {"encoder", "decoder"})
        check_quantization(quantization, lora is not None, is_compiled)
        found = check_base(base, conditioning)
        files, family = found.files, found.family
        kind, config = family.denoiser, found.configs[family.denoiser_part]
        kind.check_input_mode(input_mode)
        _check_noise(input_mode, noise)
        named = _named(outputs, input_mode)
        stored = found.stored
        given = read_conditioning(stored, family, config) if stored else encode_empty_prompt(files, family, config)
        options: dict[str, Any] = {"input_mode": input_mode, "lora": lora, "quantization": quantization}
        options |= {"checkpointing": checkpointing, "reads_image_tokens": named is not None}
        vae = _load(files, family, "vae", torch.float32)
        codec = family.codec(
            vae, train_decoder=train_decoder, precision=vae_precision, checkpointing=decoder_checkpointing
        )
        part = family.denoiser_part
        # What is quantised is never held in more bits than the base has: it would not fit into memory.
        model = _load(files, family, part, files.stored_dtype(part) if quantization else torch.float32)
        check_output(model, codec.latent_channels * (kind.pixels_out_channels or kind.pixels_in_channels), files, part)
        options["trains_first_layer"] = fit_first_layer(
            model,
            kind.first_layer,
            codec.latent_channels * kind.pixels_in_channels,
            2 if input_mode == "concatenated" else 1,
            files,
            part,
            f"input_mode: {input_mode}",
            kind.channels_first,
        )
        options |= family.denoiser_settings(codec, _guidance(family, config, guidance, base))
        denoiser = kind(model, given, **options)
        process = family.make_noise_process(files)
        if timestep is not None and not 0 <= timestep <= process.last_timestep:
            raise InputError(f"timestep must be in 0 ... {process.last_timestep:g}, not {timestep}.")
        super().__init__(
            codec, denoiser, process, noise, timestep, channels_last=channels_last, compile=compile, switch=named
        )


def _named(outputs: list[str] | None, input_mode: InputMode) -> SequenceOutputs | None:
    if outputs is None:
        return None
    if input_mode != "sequence":
        raise InputError(
            f"network.outputs {outputs} are what an editor says at two parts of its sequence: they need "
            f"input_mode: sequence, not {input_mode}."
        )
    return SequenceOutputs(outputs)


def _check_noise(input_mode: InputMode, noise: NoiseKind) -> None:
    sees_noise = input_mode in ("concatenated", "sequence")
    if sees_noise and noise == "none":
        raise InputError(f"noise: none does not go with input_mode: {input_mode}, which has a noisy latent; use zeros.")
    if not sees_noise and noise not in ("zeros", "none"):
        raise InputError(f"noise: {noise} has no effect with input_mode: {input_mode}; leave it out.")


def _guidance(family: Family, config: dict[str, Any], wanted: float | None, base: str) -> float | None:
    """Return the guidance scale that the denoiser is told, if it is told any."""
    if config.get("guidance_embeds"):
        return family.guidance if wanted is None else wanted
    if wanted is not None:
        raise InputError(f"guidance: {wanted} has no effect: the denoiser of {base} is told no guidance. Leave it out.")
    return None


def _load(base: Base, family: Family, part: str, dtype: torch.dtype) -> Any:  # noqa: ANN401
    import diffusers

    name = base.read_json(f"{part}/config.json").get("_class_name") or family.classes[part][0]
    return load_weights(getattr(diffusers, name), base, part, torch_dtype=dtype)
