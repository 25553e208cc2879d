"""The latent network: a codec, a denoiser and a noise process, whatever their family."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from geometry.errors import InputError, check_choice
from lightning_modules.networks.codec import Codec
from lightning_modules.networks.compilation import Compilation, compiled_regions
from lightning_modules.networks.denoiser import Denoiser
from lightning_modules.networks.lora import merge_adapters
from lightning_modules.networks.noise import NoiseKind, draw_noise
from lightning_modules.networks.noise_process import NoiseProcess
from lightning_modules.networks.outputs import Outputs
from lightning_modules.networks.plain import make_plain, plain_copy
from lightning_modules.networks.sharding import shard_blocks


class LatentNetwork(nn.Module):
    """Image in, decoded image out: encode, predict the clean latent in one step, decode.

    A base family is a subclass whose ``__init__`` loads the three parts. The models of codec and denoiser are
    registered under their own names, ``vae`` and ``unet`` in Stable Diffusion, and so are they named in checkpoints.

    Args:
        codec: Images to latents and back.
        denoiser: What is trained.
        noise_process: What the denoiser's output says of the clean latent.
        noise: What takes the place of the latent that a diffusion model would denoise.
        timestep: Timestep of the single step; None is the last.
        channels_last: Lay weights and activations out channel by channel.
        compile: Which parts torch.compile compiles; None is none.
        switch: Outputs that the denoiser has been made for; None is a single one, without a label.

    Raises:
        InputError: There is no such noise, or the denoiser cannot be given it.
    """

    timestep: Tensor

    def __init__(
        self,
        codec: Codec,
        denoiser: Denoiser,
        noise_process: NoiseProcess,
        noise: NoiseKind = "zeros",
        timestep: float | None = None,
        channels_last: bool = False,
        compile: Compilation | None = None,
        switch: Outputs | None = None,
    ) -> None:
        super().__init__()
        check_choice("noise", noise, get_args(NoiseKind))
        self.codec, self.denoiser, self.noise_process = codec, denoiser, noise_process
        self.noise: NoiseKind = noise
        self.switch = switch
        self.add_module(codec.name, codec.model)
        self.add_module(denoiser.name, denoiser.model)
        for name, tensor in denoiser.conditioning.items():
            self.register_buffer(name, tensor, persistent=False)
        self._timestep = noise_process.last_timestep if timestep is None else timestep
        self.register_buffer("timestep", torch.tensor(self._timestep), persistent=False)
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compile is not None:
            self.compile_parts(compile)
        self.train()

    @property
    def size_multiple(self) -> int:
        """What both sides of an image must be multiples of: whole latent pixels, and whole patches of them."""
        return self.codec.pixels_per_latent * self.denoiser.latent_multiple

    @property
    def largest_side(self) -> int | None:
        """What both sides of an image may measure at most, in pixels; None is no limit."""
        latent = self.denoiser.largest_latent
        return None if latent is None else latent * self.codec.pixels_per_latent

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what trains; what is frozen in the codec stays in eval mode.

        Args:
            mode: True for training.
        """
        super().train(mode)
        self.codec.train(mode)
        return self

    def encode(self, image: Tensor) -> Tensor:
        """Return the normalised mean latent of an image, without gradient.

        Args:
            image: (B,3,H,W) in [-1, 1].

        Returns:
            (B,C,h,w).

        Raises:
            InputError: height and width are no multiples of ``size_multiple``.
        """
        self.check_size(*image.shape[-2:])
        return self.codec.encode(image)

    def check_size(self, height: int, width: int) -> None:
        """Check that the network can take images of a size.

        Args:
            height: height in pixels.
            width: width in pixels.

        Raises:
            InputError: they are no multiples of ``size_multiple``, or larger than ``largest_side``.
        """
        if height % self.size_multiple or width % self.size_multiple:
            raise InputError(
                f"images of {height}x{width} pixels (height x width) do not fit the network: both must be multiples of "
                f"{self.size_multiple}. Prepare them at such a size."
            )
        if self.largest_side is not None and max(height, width) > self.largest_side:
            raise InputError(
                f"images of {height}x{width} pixels (height x width) do not fit the network: it takes sides of at most "
                f"{self.largest_side}. Prepare them at such a size; a prediction can be made in tiles."
            )

    def decode(self, latent: Tensor) -> Tensor:
        """Return the decoded image, with its graph.

        Args:
            latent: (B,C,h,w), normalised latent.

        Returns:
            (B,3,H,W), nominally in [-1, 1] but not clamped.
        """
        return self.codec.decode(latent)

    def image_conditioning(self, image: Tensor) -> dict[str, Tensor]:
        """Return what the denoiser is given that depends on the image (B,3,H,W): (B,...) by name; by default {}."""
        return {}

    def model_output(self, latents: Tensor, timesteps: Tensor, given: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return what the denoiser says under its conditioning.

        Args:
            latents: what ``denoiser.input_of`` makes of image latent and noisy latent.
            timesteps: () or (B,), as the noise process counts them.
            given: further conditioning (B,...), or in place of the fixed one.

        Returns:
            (B,C,h,w), as the noise process understands it.
        """
        conditioning = {name: self.get_buffer(name) for name in self.denoiser.conditioning} | dict(given or {})
        return self.denoiser.model_output(latents, timesteps, conditioning)

    def clean_latent(self, image_latent: Tensor, noise: Tensor, given: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the clean latent (x0) that the denoiser's output at the single step stands for.

        Args:
            image_latent: (B,C,h,w), latent of the image.
            noise: (B,C,h,w), latent noise or zeros.
            given: further conditioning, see ``model_output``.

        Returns:
            (B,C,h,w), normalised latent; (B,2C,h,w) with what is said at the image's tokens, where that is read.
        """
        output = self.model_output(self.denoiser.input_of(image_latent, noise), self.timestep, given)
        if self.denoiser.reads_image_tokens:
            output, second = output.chunk(2, dim=1)
            return torch.cat([self.noise_process.predict_x0(output, noise, self._timestep), second], dim=1)
        if self.denoiser.input_mode == "residual":
            return image_latent - output
        return self.noise_process.predict_x0(output, noise, self._timestep)

    def predict_latents(
        self, image: Tensor, seeds: Sequence[int] | None = None, outputs: Sequence[str] = (), dataset: str | None = None
    ) -> list[Tensor]:
        """Return the clean latents of several outputs for an image.

        Args:
            image: (B,3,H,W) in [-1, 1].
            seeds: one seed per image for the latent noise; None is 0 for all. Unused without noise.
            outputs: names of outputs of the switch; of no account without one.
            dataset: name of the data set that the images come from, where it is known.

        Returns:
            (B,C,h,w) per output, normalised latents; a single one without a switch.
        """
        image_latent = self.encode(image)
        noise = draw_noise(self.noise, image_latent, [0] * len(image) if seeds is None else seeds)
        return self.clean_latents(image_latent, noise, self.image_conditioning(image), outputs, dataset)

    def clean_latents(
        self,
        image_latent: Tensor,
        noise: Tensor,
        given: Mapping[str, Tensor],
        outputs: Sequence[str] = (),
        dataset: str | None = None,
    ) -> list[Tensor]:
        """Return the clean latents (B,C,h,w) of several outputs, a single one without a switch: see ``Outputs``."""
        if self.switch is None:
            return [self.clean_latent(image_latent, noise, given)]
        return self.switch.clean_latents(self.clean_latent, image_latent, noise, given, outputs, dataset)

    def predict_latent(self, image: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the clean latent (B,C,h,w) of the prediction, or the switch's first output: see ``predict_latents``.

        Args:
            image: (B,3,H,W) in [-1, 1].
            seeds: one seed per image for the latent noise; None is 0 for all. Unused without noise.
        """
        return self.predict_latents(image, seeds, self.switch.outputs[:1] if self.switch else ())[0]

    def forward(self, image: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the decoded prediction for an image.

        Args:
            image: (B,3,H,W) in [-1, 1].
            seeds: one seed per image for the latent noise; None is 0 for all. Unused without noise.

        Returns:
            (B,3,H,W), nominally in [-1, 1] but not clamped.
        """
        return self.decode(self.predict_latent(image, seeds))

    def compilable_parts(self) -> dict[str, nn.Module]:
        """Return the parts that torch.compile can compile, by the names that ``compile.parts`` has for them."""
        codec = self.codec.model
        return {self.denoiser.name: self.denoiser.model, "encoder": codec.encoder, "decoder": codec.decoder}

    def compile_parts(self, options: Compilation) -> None:
        """Let torch.compile compile parts of the network when they are first used.

        Args:
            options: how to compile, and which parts.

        Raises:
            InputError: there is no such part, or it repeats no blocks.
        """
        parts = self.compilable_parts()
        for part in options.parts or ():
            if part not in parts:
                raise InputError(f"compile.parts: there is no {part!r}; choose from {', '.join(parts)}.")
        for name, module in parts.items():
            is_denoiser = module is self.denoiser.model
            options.apply(name, module, (self.denoiser if is_denoiser else self.codec).repeated_blocks)

    def shard(self, mesh: DeviceMesh) -> None:
        """Shard what trains over devices, the denoiser block by block; what is frozen in the codec stays whole.

        Args:
            mesh: the devices.

        Raises:
            InputError: something that trains is compiled, or its weights have 4 bits or no layout to shard.
        """
        if self.denoiser.is_quantized:
            raise InputError(
                "weights of 4 bits are not sharded over devices: leave out network.quantization, or train with "
                "trainer.strategy ddp, where every device holds all of them."
            )
        for module in self.compilable_parts().values():
            if compiled_regions(module) and any(parameter.requires_grad for parameter in module.parameters()):
                raise InputError(
                    "network.compile does not work with weights that are sharded over devices; leave it out."
                )
        for part in self.codec.trained_parts:
            shard_blocks(part, [], mesh)
        shard_blocks(self.denoiser.model, self.denoiser.sharded_blocks(), mesh)

    def export_parts(self) -> dict[str, nn.Module]:
        """Return copies of the models as stock diffusers models, with adapters merged into the weights.

        Returns:
            The models by their names, in float32 and eval mode; neither compiled, checkpointed nor trainable. The
            network itself stays as it is.
        """
        return {self.denoiser.name: self.denoiser.export_copy(), self.codec.name: plain_copy(self.codec.model)}

    def export_copy(self) -> Self:
        """Return a copy to trace: on the CPU, in float32 and eval mode, with adapters merged, not compiled."""
        network = copy.deepcopy(self).cpu().float()
        make_plain(network.codec.model)
        merge_adapters(make_plain(network.denoiser.model))
        return network

    def export_details(self) -> dict[str, Any]:
        """Return what those who read an export of this family must know beside, as values that JSON can hold."""
        return {}
