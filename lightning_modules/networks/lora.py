"""Low-rank adapters on a network's layers, so that a small share of its weights trains."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from geometry.errors import InputError

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


def _layers_of_the_transformer_blocks() -> list[str]:
    return ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters: all weights stay frozen, and a product of two thin matrices is added to each chosen layer.

    Args:
        rank: Rank of the adapters; their number of weights grows with it.
        alpha: The adapters are scaled by alpha / rank; None is alpha equal to rank.
        dropout: Share of an adapter's inputs that is dropped in training.
        target_modules: Ends of the names of the layers that get adapters. By default, all linear layers of the
            transformer blocks; add conv1, conv2 and conv_shortcut for the convolutions of the residual blocks.

    Raises:
        InputError: A value is out of range.

    Source:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, through the library peft.
    """

    rank: int = 16
    alpha: int | None = None
    dropout: float = 0.0
    target_modules: list[str] = field(default_factory=_layers_of_the_transformer_blocks)

    def __post_init__(self) -> None:
        if self.rank < 1 or (self.alpha is not None and self.alpha < 1) or not 0 <= self.dropout < 1:
            raise InputError(
                f"lora needs rank >= 1, alpha >= 1 and 0 <= dropout < 1, got {self.rank}, {self.alpha} and "
                f"{self.dropout}."
            )

    def apply(self, unet: "UNet2DConditionModel") -> None:
        """Freeze a UNet and give it adapters, which start as no change at all.

        Args:
            unet: the UNet to change.

        Raises:
            InputError: peft is not installed, or a target names no layer that can have an adapter.
        """
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise InputError("lora needs the library peft: pip install -e '.[lora]'.") from error

        names = [name for name, _ in unet.named_modules()]
        unknown = [end for end in self.target_modules if not any(f".{name}".endswith(f".{end}") for name in names)]
        if unknown or not self.target_modules:
            raise InputError(f"lora: no layer of the UNet is named {', '.join(unknown) or 'in target_modules'}.")
        unet.requires_grad_(False)
        try:
            unet.add_adapter(
                LoraConfig(
                    r=self.rank,
                    lora_alpha=self.rank if self.alpha is None else self.alpha,
                    lora_dropout=self.dropout,
                    target_modules=list(self.target_modules),
                )
            )
        except ValueError as error:  # a target is a layer of a kind that peft has no adapter for
            raise InputError(f"lora: {' '.join(str(error).split())}") from error


def merge_adapters(unet: "UNet2DConditionModel") -> None:
    """Add the adapters of a UNet to its weights and take them off; without adapters nothing changes.

    Args:
        unet: the UNet to change.
    """
    if getattr(unet, "peft_config", None):
        unet.fuse_lora()
        unet.unload_lora()
