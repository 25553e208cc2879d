"""The denoiser of a latent network: the part of a base family that is trained."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from geometry.errors import InputError, check_choice
from lightning_modules.lightning_internals import repeated_blocks
from lightning_modules.networks.frozen import keep_little
from lightning_modules.networks.lora import LoRA, merge_adapters
from lightning_modules.networks.plain import plain_copy
from lightning_modules.networks.quantization import Quantization, is_quantized, quantize

InputMode = Literal["concatenated", "sequence", "image", "residual"]


class Denoiser(ABC):
    """A UNet or transformer of diffusers, and all that a base family knows of it.

    A family is a subclass: ``model_output`` says how the model is called; the class attributes say the rest.

    Args:
        model: The model; the network registers it under ``name``, which begins the names of its weights in
            checkpoints, and names the part for ``compile``.
        conditioning: What the model is given beside latent and timestep, the same for all images: the embedding of the
            empty prompt, for instance. The network moves it along with the weights.
        input_mode: What the model sees: image latent and noisy latent, concatenated or, in a model that edits images,
            one after the other in its sequence; the image latent alone; or the image latent alone, and what it says is
            subtracted from it (residual).
        lora: Low-rank adapters in place of the model's own weights.
        checkpointing: Recompute the model's activations in the backward pass to save memory.
        trains_first_layer: Train the first layer beside the adapters, because it was widened.
        new_layers: Names of layers that the base has not got, which train beside the adapters, too.
        quantization: Keep the frozen weights of the model's blocks in 4 bits.
        reads_image_tokens: Read what the model says at the image's tokens, too, which follow those of the noisy latent.

    Raises:
        InputError: There is no such input mode, the family has not got it, or the adapters do not fit.
    """

    name = "transformer"
    #: How many latent pixels of a side the model takes at once: the patch of a transformer.
    latent_multiple = 1
    #: How many latent pixels of a side the model takes at most, where there is such a limit: its learned positions.
    largest_latent: int | None = None
    #: Why a program for any size cannot be traced of the model, as the end of a sentence; empty where it can.
    untraceable = ""
    #: Ends of the names of the layers that get low-rank adapters by default.
    lora_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    #: Name of the layer that sees the latents.
    first_layer = ""
    #: How many latent pixels the model's in_channels count as channels of one token.
    pixels_in_channels = 1
    #: How many its out_channels count; by default as many.
    pixels_out_channels: int | None = None
    #: Whether a linear first layer has its inputs sorted by channel, then by pixel; or the other way about.
    channels_first = True
    #: What the family's models can be given.
    input_modes: tuple[InputMode, ...] = ("concatenated", "image", "residual")

    def __init__(
        self,
        model: nn.Module,
        conditioning: Mapping[str, Tensor] | None = None,
        input_mode: InputMode = "concatenated",
        lora: LoRA | None = None,
        checkpointing: bool = False,
        trains_first_layer: bool = False,
        new_layers: Sequence[str] = (),
        quantization: Quantization | None = None,
        reads_image_tokens: bool = False,
    ) -> None:
        self.check_input_mode(input_mode)
        self.reads_image_tokens = reads_image_tokens
        self.model: Any = model
        self.conditioning = dict(conditioning or {})
        self.input_mode: InputMode = input_mode
        idle = self.idle_layers(model)
        for name in idle:
            model.get_submodule(name).requires_grad_(False)
        if quantization is not None:
            quantize(self.sharded_blocks())
            model.float()
        if lora is not None:
            lora.apply(model, self.lora_targets, idle, self.first_layer)
            for name in (*([self.first_layer] if trains_first_layer else []), *new_layers):
                model.get_submodule(name).requires_grad_(True)
            keep_little(model)
        if checkpointing:
            self.model.enable_gradient_checkpointing()  # type: ignore[operator]

    @classmethod
    def check_input_mode(cls, input_mode: str) -> None:
        """Check that the family's models can be given what an input mode says.

        Args:
            input_mode: the input mode.

        Raises:
            InputError: they cannot, or there is no such input mode.
        """
        check_choice("input mode", input_mode, get_args(InputMode))
        if input_mode not in cls.input_modes:
            known = ", ".join(cls.input_modes)
            raise InputError(f"this base's family has no input mode {input_mode!r}; choose one of {known}.")

    def idle_layers(self, model: nn.Module) -> Sequence[str]:
        """Return the names of layers whose weights have no influence on the output, and which therefore never train.

        Args:
            model: the model.
        """
        return ()

    @abstractmethod
    def model_output(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Return what the model says.

        Sizes are those of ``latents.shape``; ``len`` would fix the number of images in programs that are traced.

        Args:
            latents: (B,C,h,w), or (B,2C,h,w), the image latent and then the noisy one, where the model sees both.
            timesteps: () or (B,), as the noise process counts them.
            conditioning: what was given at the start, for one image, on the device of the latents.

        Returns:
            (B,C,h,w), as the noise process understands it; (B,2C,h,w) with what is said at the image's tokens, where
            that is read.
        """

    def seen(self, latents: Tensor) -> tuple[Tensor, ...]:
        """Return the latents (B,C,h,w) that a model of tokens sees one after the other: the noisy one, then the image.

        Args:
            latents: as ``model_output`` has them; in other input modes, they are one.
        """
        if self.input_mode != "sequence":
            return (latents,)
        image, noisy = latents.chunk(2, dim=1)
        return noisy, image

    def said(self, tokens: Tensor, count: int, as_latent: Callable[[Tensor], Tensor]) -> Tensor:
        """Return as a latent what a model of tokens says: at those of the noisy latent, and the image's if it is read.

        Args:
            tokens: (B,L,D), those of the noisy latent and then, where the model sees it so, of the image.
            count: tokens of a latent.
            as_latent: makes (B,C,h,w) of (B,count,D).
        """
        # Not by split: of how many parts it makes of an unknown length, ONNX's exporter knows nothing.
        parts = [tokens.narrow(1, number * count, count) for number in range(2 if self.reads_image_tokens else 1)]
        return torch.cat([as_latent(part) for part in parts], dim=1)

    @property
    def denoises(self) -> bool:
        """Whether the model sees a noisy latent."""
        return self.input_mode in ("concatenated", "sequence")

    @property
    def is_quantized(self) -> bool:
        """Whether weights of the model are kept in 4 bits."""
        return is_quantized(self.model)

    def input_of(self, image_latent: Tensor, sample: Tensor) -> Tensor:
        """Return what the model sees.

        Args:
            image_latent: (B,C,h,w), latent of the image.
            sample: (B,C,h,w), noisy latent.
        """
        return torch.cat([image_latent, sample], dim=1) if self.denoises else image_latent

    @property
    def repeated_blocks(self) -> tuple[str, ...]:
        """Names of the classes of blocks that the model repeats, as diffusers lists them: to compile and to shard."""
        return repeated_blocks(self.model)

    def sharded_blocks(self) -> list[nn.Module]:
        """Return the blocks that are sharded over devices and gathered one at a time."""
        return [block for block in self.model.modules() if type(block).__name__ in self.repeated_blocks]

    def export_copy(self) -> nn.Module:
        """Return a copy as a stock model of diffusers, with adapters merged into its weights; see ``plain_copy``."""
        model = plain_copy(self.model)
        merge_adapters(model)
        return model

    def make_traceable(self) -> None:  # noqa: B027 - most models have nothing to do here
        """Change the model, a copy of a network's, so that a program traced of it holds for images of any size.

        Nothing by default.
        """
