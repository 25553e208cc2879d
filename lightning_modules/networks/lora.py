"""Low-rank adapters on a network's layers, so that a small share of its weights trains."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import nn

from geometry.errors import InputError, one_line
from lightning_modules.networks.quantization import dequantize, is_quantized

# More than any layer has inputs; adapters of that rank are no longer low-rank.
_MAX_RANK = 8192


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters: all weights stay frozen, and a product of two thin matrices is added to each chosen layer.

    Args:
        rank: Rank of the adapters; their number of weights grows with it.
        alpha: The adapters are scaled by alpha / rank; None is alpha equal to rank.
        dropout: Share of an adapter's inputs that is dropped in training.
        target_modules: Ends of the names of the layers that get adapters. By default, those that the
            network's family names; in Stable Diffusion, all linear layers of the transformer blocks (add conv1, conv2
            and conv_shortcut for the convolutions of the residual blocks). The layer that sees the latents (img_in,
            x_embedder ...) and the last one (proj_out) may be named, too.

    Raises:
        InputError: A value is out of range.

    Source:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, through the library peft.
    """

    rank: int = 16
    alpha: int | None = None
    dropout: float = 0.0
    target_modules: list[str] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= _MAX_RANK or (self.alpha is not None and self.alpha < 1) or not 0 <= self.dropout < 1:
            raise InputError(
                f"lora needs 1 <= rank <= {_MAX_RANK}, alpha >= 1 and 0 <= dropout < 1, got {self.rank}, {self.alpha} "
                f"and {self.dropout}."
            )

    def apply(
        self, model: nn.Module, default_targets: Sequence[str], idle: Sequence[str] = (), first_layer: str = ""
    ) -> None:
        """Freeze a model and give it adapters, which start as no change at all.

        Args:
            model: the model to change, one of diffusers.
            default_targets: ends of the names of the layers that get adapters unless ``target_modules`` says others.
            idle: names of layers that get none, because they have no influence on the output.
            first_layer: name of the layer that sees the latents, for the message.

        Raises:
            InputError: peft is not installed, the model takes no adapters, or a target names no layer that
                can have an adapter.
        """
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise InputError("lora needs the library peft: pip install -e '.[lora]'.") from error

        if not hasattr(model, "add_adapter"):
            raise InputError(f"lora: {type(model).__name__} takes no adapters; it must be a model of diffusers.")
        targets = list(default_targets) if self.target_modules is None else self.target_modules
        found = {end: _layers_named(end, model) for end in targets}
        unknown = [end for end, layers in found.items() if not layers]
        if unknown or not targets:
            named = ", ".join(unknown) or "in target_modules"
            remedy = _nearest(unknown or default_targets, model, first_layer)
            raise InputError(f"lora: no layer of the {type(model).__name__} is named {named}. {remedy}")
        chosen = {name for layers in found.values() for name in layers}
        chosen -= {name for name in chosen for layer in idle if f"{name}.".startswith(f"{layer}.")}
        model.requires_grad_(False)
        adapted: Any = model
        adapted.is_loaded_in_4bit = is_quantized(model)  # peft asks for it, to choose its adapters
        try:
            adapted.add_adapter(
                LoraConfig(
                    r=self.rank,
                    lora_alpha=self.rank if self.alpha is None else self.alpha,
                    lora_dropout=self.dropout,
                    target_modules=sorted(chosen),
                )
            )
        except ValueError as error:  # a target is a layer of a kind that peft has no adapter for
            raise InputError(f"lora: {one_line(error)}") from error


def _layers_named(end: str, model: nn.Module) -> list[str]:
    """Return the names of the layers whose names have an end; of what holds further layers only if nothing else has."""
    matches = [(name, module) for name, module in model.named_modules() if f".{name}".endswith(f".{end}")]
    return [name for name, module in matches if not any(module.children())] or [name for name, _ in matches]


def _nearest(wanted: Sequence[str], model: nn.Module, first_layer: str) -> str:
    """Say which names of layers are nearest to names that there are not, and which layer sees the latents."""
    ends = {first_layer} - {""}
    for name, module in model.named_modules():
        if hasattr(module, "weight") and getattr(module.weight, "ndim", 0) > 1:
            # The name within its block, for what is before that has numbers: attn.to_out.0, and to_out.0.
            within = re.split(r"\.\d+\.(?=\D)", name)[-1]
            short = re.search(r"[^.]*\D[^.]*(\.\d+)*$", within)
            ends |= {within, short[0] if short else within}
    near = [each for name in wanted for each in get_close_matches(name, sorted(ends), n=3, cutoff=0.3)]
    listed = f"Nearest: {', '.join(dict.fromkeys(near))}. " if near else ""
    return f"{listed}The layer that sees the latents is {first_layer}." if first_layer else listed.strip()


def merge_adapters(model: Any) -> None:  # noqa: ANN401 - diffusers' mixin, which nn.Module does not show
    """Add the adapters of a model to its weights and take them off; without adapters nothing changes.

    Weights of 4 bits become ordinary ones, for what is added is finer than their steps.

    Args:
        model: the model to change.
    """
    dequantize(model)
    model.is_loaded_in_4bit = False
    if getattr(model, "peft_config", None):
        model.fuse_lora()
        model.unload_lora()


def adapter_scale(model: Any) -> float | None:  # noqa: ANN401 - as above
    """Return what the adapters of a model are multiplied by, alpha / rank, or None without adapters.

    Args:
        model: a model of diffusers.
    """
    configs = getattr(model, "peft_config", None) or {}
    return next((config.lora_alpha / config.r for config in configs.values()), None)
