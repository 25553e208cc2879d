"""The codec of a latent network: images to normalised latents and back."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from geometry.errors import check_choice
from lightning_modules.lightning_internals import checkpoints_itself
from lightning_modules.networks.frozen import keep_little

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

VaePrecision = Literal["float32", "bfloat16"]

# The blocks that diffusers' autoencoders repeat. diffusers itself lists none of them for compilation.
_REPEATED_BLOCKS = ("ResnetBlock2D", "BasicTransformerBlock")


class Codec(ABC):
    """An autoencoder of diffusers and what makes its latents those that a denoiser knows.

    The encoder is frozen. The decoder keeps its graph and is frozen, too, unless asked otherwise; what is frozen keeps
    little for the backward pass. Families with other latents (packed, or with an axis of time) are further classes.

    Args:
        model: The autoencoder, with ``encoder`` and ``decoder``; the network registers it under ``name``.
        train_decoder: Train the decoder along with the denoiser.
        precision: Precision of what is frozen.
        checkpointing: Recompute the decoder's activations in the backward pass to save memory.

    Raises:
        InputError: There is no such precision.
    """

    name = "vae"
    repeated_blocks: tuple[str, ...] = _REPEATED_BLOCKS
    #: Of the encoder's latents, per channel; for subclasses that normalise by nothing else.
    mean: list[float]
    std: list[float]

    def __init__(
        self,
        model: nn.Module,
        train_decoder: bool = False,
        precision: VaePrecision = "float32",
        checkpointing: bool = False,
    ) -> None:
        check_choice("vae_precision", precision, get_args(VaePrecision))
        self.model: Any = model.requires_grad_(False)
        self.trained_parts: list[nn.Module] = self._decoding_parts() if train_decoder else []
        for part in self.trained_parts:
            part.requires_grad_(True)
        if precision == "bfloat16":
            for part in model.children():
                if part not in self.trained_parts:
                    part.bfloat16()
        if checkpointing:
            self._checkpoint()
        for part in self._decoding_parts():
            keep_little(part)

    @property
    @abstractmethod
    def pixels_per_latent(self) -> int:
        """How many pixels of a side make one latent pixel."""

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """Channels of a latent."""

    @abstractmethod
    def latent_mean(self, image: Tensor) -> Tensor:
        """Return the mean latent (B,C,h,w) of an image (B,3,H,W) as the encoder gives it, not normalised."""

    @abstractmethod
    def decoded(self, latent: Tensor) -> Tensor:
        """Return the image (B,3,H,W) that the decoder makes of a latent (B,C,h,w) that is not normalised."""

    def normalize(self, latent: Tensor) -> Tensor:
        """Return the encoder's latent as the denoiser knows it: by default, by mean and deviation per channel."""
        return (latent - per_channel(self.mean, latent)) / per_channel(self.std, latent)

    def denormalize(self, latent: Tensor) -> Tensor:
        """Return a latent as the decoder knows it: the inverse of ``normalize``."""
        return latent * per_channel(self.std, latent) + per_channel(self.mean, latent)

    def encode(self, image: Tensor) -> Tensor:
        """Return the normalised mean latent of an image, without gradient.

        Args:
            image: (B,3,H,W) in [-1, 1].

        Returns:
            (B,C,h,w).
        """
        with torch.no_grad(), _half_precision_of(self.model.encoder, image) as half:
            mean = self.latent_mean(image)
        latent = self.normalize(mean.to(image.dtype) if half else mean)
        # An encoder's attention leaves the latents of several images channel by channel, and on the CPU PyTorch's group
        # normalisation of such tensors cancels digits: predictions were off by 4e-4. Training keeps its numbers.
        return latent if torch.is_grad_enabled() or latent.device.type != "cpu" else latent.contiguous()

    def decode(self, latent: Tensor) -> Tensor:
        """Return the decoded image, with its graph.

        Args:
            latent: (B,C,h,w), normalised latent.

        Returns:
            (B,3,H,W), nominally in [-1, 1] but not clamped.
        """
        with _half_precision_of(self.model.decoder, latent) as half:
            decoded = self.decoded(self.denormalize(latent))
        return decoded.to(latent.dtype) if half else decoded

    def known_latents(self, known: Tensor) -> Tensor:
        """Return which latent pixels have only known pixels under them.

        Args:
            known: (B,1,H,W) bool.

        Returns:
            (B,1,h,w) bool.
        """
        return ~functional.max_pool2d((~known).float(), self.pixels_per_latent).bool()

    def train(self, mode: bool) -> None:
        """Put the parts that train into a mode; the frozen ones stay in eval mode.

        Args:
            mode: True for training.
        """
        self.model.eval()
        for part in self.trained_parts:
            part.train(mode)

    def _checkpoint(self) -> None:
        """Recompute activations in the backward pass: as diffusers does, or block by block where it does not."""
        if checkpoints_itself(self.model):
            self.model.enable_gradient_checkpointing()
            return
        for block in self.model.decoder.modules():
            if type(block).__name__ in self.repeated_blocks:
                block.forward = MethodType(_forward_again, block)

    def _decoding_parts(self) -> list[nn.Module]:
        parts = (getattr(self.model, "post_quant_conv", None), self.model.decoder)
        return [part for part in parts if part is not None]


class AutoencoderKLCodec(Codec):
    """diffusers' ``AutoencoderKL``: (B,C,h,w) latents, normalised by scale, shift, or mean and deviation per channel.

    Convention:
        As in diffusers: (latent - shift_factor) * scaling_factor; where the config has latents_mean and latents_std,
        (latent - latents_mean) * scaling_factor / latents_std.

    Args:
        model: The autoencoder.
        **options: Those of every codec.
    """

    model: "AutoencoderKL"

    def __init__(self, model: "AutoencoderKL", **options: Any) -> None:  # noqa: ANN401
        super().__init__(model, **options)
        config = model.config
        self._scale: float = config["scaling_factor"]
        self._shift: float = config.get("shift_factor") or 0.0
        self._mean: list[float] | None = config.get("latents_mean")
        self._std: list[float] | None = config.get("latents_std")

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels of a side make one latent pixel."""
        return 2 ** (len(self.model.config["block_out_channels"]) - 1)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.model.config["latent_channels"]

    def latent_mean(self, image: Tensor) -> Tensor:
        """Return the mean latent (B,C,h,w) of an image (B,3,H,W) as the encoder gives it, not normalised."""
        return self.model.encode(image).latent_dist.mean

    def decoded(self, latent: Tensor) -> Tensor:
        """Return the image (B,3,H,W) that the decoder makes of a latent (B,C,h,w) that is not normalised."""
        return self.model.decode(latent).sample

    def normalize(self, latent: Tensor) -> Tensor:
        """Return the encoder's latent as the denoiser knows it."""
        if self._mean is not None and self._std is not None:
            return (latent - per_channel(self._mean, latent)) * (self._scale / per_channel(self._std, latent))
        return self._scale * (latent - self._shift if self._shift else latent)

    def denormalize(self, latent: Tensor) -> Tensor:
        """Return a latent as the decoder knows it: the inverse of ``normalize``."""
        if self._mean is not None and self._std is not None:
            return latent * (per_channel(self._std, latent) / self._scale) + per_channel(self._mean, latent)
        plain = latent / self._scale
        return plain + self._shift if self._shift else plain


def per_channel(values: list[float], like: Tensor) -> Tensor:
    """Return one number per channel, (C,1,1) beside latents, without waiting for the device."""
    return torch.tensor(values).to(like, non_blocking=True)[:, None, None]


def _forward_again(block: nn.Module, *args: Any) -> Any:  # noqa: ANN401
    """Do as a block does, and do it again in the backward pass in place of keeping what it computed."""
    forward = type(block).forward
    if not torch.is_grad_enabled():
        return forward(block, *args)
    return checkpoint(forward, block, *args, use_reentrant=False)


@contextmanager
def _half_precision_of(part: nn.Module, like: Tensor) -> Iterator[bool]:
    """Let a part that is kept in bfloat16 compute under autocast; say whether it is such a part."""
    half = next(part.parameters()).dtype == torch.bfloat16
    with torch.autocast(like.device.type, torch.bfloat16) if half else nullcontext():
        yield half
