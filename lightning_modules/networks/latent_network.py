"""The latent-diffusion network: a frozen VAE around a trainable backbone that predicts in a single step."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal, Self, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn import functional

from geometry.errors import InputError
from lightning_modules.networks.compilation import Compilation, Part, compiled_regions
from lightning_modules.networks.frozen import keep_little
from lightning_modules.networks.noise import NoiseKind, draw_noise
from lightning_modules.networks.sharding import shard_blocks

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL


Model = TypeVar("Model", bound=nn.Module)
VaePrecision = Literal["float32", "bfloat16"]


class LatentNetwork(nn.Module, ABC):
    """Image in, decoded image out: encode, predict the clean latent in one step, decode.

    A backbone is a subclass with one method, ``clean_latent``. The encoder is frozen and runs without gradient. The
    decoder keeps its graph, and is frozen, too, unless asked otherwise. What is frozen stays in eval mode.

    Args:
        vae: The autoencoder.
        noise: What takes the place of the latent that a diffusion model would denoise.
        decoder_checkpointing: Recompute the decoder's activations in the backward pass to save memory.
        train_decoder: Train the decoder along with the backbone.
        vae_precision: Precision of what is frozen in the VAE.

    Raises:
        InputError: There is no such precision.
    """

    def __init__(
        self,
        vae: "AutoencoderKL",
        noise: NoiseKind,
        decoder_checkpointing: bool = False,
        train_decoder: bool = False,
        vae_precision: VaePrecision = "float32",
    ) -> None:
        super().__init__()
        if vae_precision not in get_args(VaePrecision):
            raise InputError(
                f"there is no vae_precision {vae_precision!r}; choose one of {', '.join(get_args(VaePrecision))}."
            )
        self.vae = vae.requires_grad_(False)
        self.noise: NoiseKind = noise
        decoding: list[nn.Module] = [part for part in (vae.post_quant_conv, vae.decoder) if part is not None]
        self._trained_vae_parts = decoding if train_decoder else []
        for part in self._trained_vae_parts:
            part.requires_grad_(True)
        if vae_precision == "bfloat16":
            for part in vae.children():
                if part not in self._trained_vae_parts:
                    part.bfloat16()
        if decoder_checkpointing:
            vae.enable_gradient_checkpointing()
        keep_little(vae.decoder)
        self.train()

    @property
    def size_factor(self) -> int:
        """How many pixels make one latent pixel; image sizes must be multiples of it."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def _shift(self) -> float:
        """What is taken off the VAE's latents before they are scaled; 0 in all of Stable Diffusion 1 and 2."""
        return self.vae.config.get("shift_factor") or 0.0

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what trains; the frozen parts of the VAE stay in eval mode.

        Args:
            mode: True for training.
        """
        super().train(mode)
        self.vae.eval()
        for part in self._trained_vae_parts:
            part.train(mode)
        return self

    @abstractmethod
    def clean_latent(self, image_latent: Tensor, noise: Tensor) -> Tensor:
        """Return the clean latent of the prediction.

        Args:
            image_latent: (B,C,h,w), scaled latent of the image.
            noise: (B,C,h,w), latent noise or zeros.

        Returns:
            (B,C,h,w), scaled latent.
        """

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Return the scaled mean latent of an image, without gradient.

        Convention:
            (mean - shift_factor) * scaling_factor of the VAE, as in diffusers; no shift where its config has none.

        Args:
            image: (B,3,H,W) in [-1, 1].

        Returns:
            (B,C,h,w).

        Raises:
            InputError: the VAE's factor does not divide height and width.
        """
        self.check_size(*image.shape[-2:])
        with _half_precision_of(self.vae.encoder, image) as half:
            mean = self.vae.encode(image).latent_dist.mean
        mean = mean.to(image.dtype) if half else mean
        return self.vae.config["scaling_factor"] * (mean - self._shift if self._shift else mean)

    def check_size(self, height: int, width: int) -> None:
        """Check that the network can take images of a size.

        Args:
            height: height in pixels.
            width: width in pixels.

        Raises:
            InputError: the VAE's factor does not divide both.
        """
        if height % self.size_factor or width % self.size_factor:
            raise InputError(
                f"images of {height}x{width} pixels (height x width) do not fit the VAE: both must be multiples of "
                f"its factor {self.size_factor}. Prepare them at such a size."
            )

    def decode(self, latent: Tensor) -> Tensor:
        """Return the decoded image, with its graph.

        Args:
            latent: (B,C,h,w), scaled latent.

        Returns:
            (B,3,H,W), nominally in [-1, 1] but not clamped.
        """
        with _half_precision_of(self.vae.decoder, latent) as half:
            plain = latent / self.vae.config["scaling_factor"]
            decoded = self.vae.decode(plain + self._shift if self._shift else plain).sample
        return decoded.to(latent.dtype) if half else decoded

    def known_latents(self, known: Tensor) -> Tensor:
        """Return which latent pixels have only known pixels under them.

        Args:
            known: (B,1,H,W) bool.

        Returns:
            (B,1,h,w) bool.
        """
        return ~functional.max_pool2d((~known).float(), self.size_factor).bool()

    def predict_latent(self, image: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the clean latent of the prediction for an image.

        Args:
            image: (B,3,H,W) in [-1, 1].
            seeds: one seed per image for the latent noise; None is 0 for all. Unused without noise.

        Returns:
            (B,C,h,w), scaled latent.
        """
        image_latent = self.encode(image)
        noise = draw_noise(self.noise, image_latent, [0] * len(image) if seeds is None else seeds)
        return self.clean_latent(image_latent, noise)

    def forward(self, image: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the decoded prediction for an image.

        Args:
            image: (B,3,H,W) in [-1, 1].
            seeds: one seed per image for the latent noise; None is 0 for all. Unused without noise.

        Returns:
            (B,3,H,W), nominally in [-1, 1] but not clamped.
        """
        return self.decode(self.predict_latent(image, seeds))

    def compilable_parts(self) -> dict[Part, nn.Module]:
        """Return the parts that torch.compile can translate. A backbone adds its own to them."""
        return {"encoder": self.vae.encoder, "decoder": self.vae.decoder}

    def compile_parts(self, options: Compilation) -> None:
        """Let torch.compile translate parts of the network when they are first used.

        Args:
            options: how to compile, and which parts.
        """
        for part, module in self.compilable_parts().items():
            options.apply(part, module)

    def shard(self, mesh: DeviceMesh) -> None:
        """Divide what trains among devices; what is frozen stays whole. A backbone adds its own weights to this.

        Args:
            mesh: the devices.

        Raises:
            InputError: something that trains is compiled.
        """
        for module in self.compilable_parts().values():
            if compiled_regions(module) and any(parameter.requires_grad for parameter in module.parameters()):
                raise InputError(
                    "network.compile does not work with weights that are divided among devices; leave it out."
                )
        for part in self._trained_vae_parts:
            shard_blocks(part, [], mesh)

    def export_parts(self) -> dict[str, nn.Module]:
        """Return copies of the parts as stock diffusers models, for those who save or convert them.

        Returns:
            The parts by their names in the diffusers layout, in float32 and eval mode, neither compiled nor trainable.
            The network itself stays as it is.
        """
        vae = plain_copy(self.vae)
        vae.disable_gradient_checkpointing()
        return {"vae": vae}


def plain_copy(model: Model) -> Model:
    """Return a copy of a model that is in float32 and eval mode, and neither compiled nor trainable.

    Args:
        model: the model.
    """
    return copy.deepcopy(model).float().eval().requires_grad_(False)


@contextmanager
def _half_precision_of(part: nn.Module, like: Tensor) -> Iterator[bool]:
    """Let a part that is kept in bfloat16 compute under autocast; say whether it is such a part."""
    half = next(part.parameters()).dtype == torch.bfloat16
    with torch.autocast(like.device.type, torch.bfloat16) if half else nullcontext():
        yield half
