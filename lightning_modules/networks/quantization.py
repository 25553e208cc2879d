"""A frozen base in 4 bits a weight, under adapters that keep their precision."""

from collections.abc import Sequence
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn

from geometry.errors import InputError

Quantization = Literal["nf4"]
#: Weights that share a scale.
BLOCK = 64


def check_quantization(quantization: str | None, has_adapters: bool, is_compiled: bool) -> None:
    """Check that a base can be quantised, before it is read.

    Args:
        quantization: what the network was asked for; None is nothing.
        has_adapters: low-rank adapters train in place of the base's weights.
        is_compiled: the denoiser is to be compiled.

    Raises:
        InputError: there is no such quantisation, or it does not go with the other settings.
    """
    if quantization is None:
        return
    if quantization != "nf4":
        raise InputError(f"there is no quantization {quantization!r}; choose nf4, or leave it out.")
    if not has_adapters:
        raise InputError("weights of 4 bits cannot be trained: quantization: nf4 needs network.lora, e.g. {rank: 16}.")
    if is_compiled:
        raise InputError("network.compile of the denoiser does not go with quantization: nf4; leave one of them out.")
    _bitsandbytes()


def can_be_quantized(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether ``quantize`` stores a layer's weights in 4 bits: a linear layer with a multiple of 64 inputs."""
    return type(layer) is nn.Linear and layer.in_features % BLOCK == 0


def quantize(blocks: Sequence[nn.Module]) -> None:
    """Store the weights of linear layers within blocks as NF4, 4.13 bits each; biases stay as they are.

    A layer whose inputs are not a multiple of 64 stays as it is: the library's code for the CPU gives a block of 64
    weights that reaches over two rows the scale of another one (bitsandbytes 0.50.2). Generators have few of them.
    Under autocast, what is stored so computes in half precision, as any other linear layer does.

    Args:
        blocks: parts of a model, on the CPU.

    Raises:
        InputError: no layer can be stored so.
    """
    library = _bitsandbytes()
    for block in blocks:
        for name, layer in [*block.named_modules()]:
            if can_be_quantized(layer):
                block.set_submodule(name, _quantized(layer, library))
    if not any(is_quantized(block) for block in blocks):
        raise InputError(f"quantization: nf4 finds no layer whose inputs are a multiple of {BLOCK}; leave it out.")


def is_quantized(model: nn.Module) -> bool:
    """Say whether a model has weights of 4 bits."""
    return any(_has_4_bits(layer) for layer in model.modules())


def dequantize(model: nn.Module) -> None:
    """Give a model ordinary linear layers in place of quantised ones, adapters merged into their weights.

    Args:
        model: the model to change; one without quantised layers stays as it is.
    """
    for name, layer in [*model.named_modules()]:
        if _has_4_bits(layer) and isinstance(layer, nn.Linear):
            plain, owner = _dequantized(layer), name.removesuffix(".base_layer")
            if owner != name:
                adapted: Any = model.get_submodule(owner)
                plain.weight += sum(adapted.get_delta_weight(adapter) for adapter in adapted.active_adapters)
            model.set_submodule(owner, plain)


def _has_4_bits(layer: nn.Module) -> bool:
    return getattr(getattr(layer, "weight", None), "quant_state", None) is not None


def _quantized(layer: nn.Linear, library: Any) -> nn.Module:  # noqa: ANN401 - a module of Python
    with torch.device("meta"):
        small = library.nn.Linear4bit(layer.in_features, layer.out_features, layer.bias is not None)
    small.weight = library.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=small)
    small.bias = layer.bias
    # It would pack the weights anew for validation, to compute with fewer bits than training does.
    small.support_avx512bf16_for_cpu = False
    small.register_forward_pre_hook(_cast_as_autocast_would)
    return small.to("cpu").requires_grad_(False)


def _cast_as_autocast_would(layer: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ANN401
    """Give a layer its tokens in half precision under autocast, which does not know the library's product.

    Left alone, the library computes in the type of the first tokens that it sees: float32 behind a normalisation.
    """
    tokens, *others = inputs
    kind = tokens.device.type
    layer.compute_dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tokens.dtype
    layer.compute_type_is_set = True
    return tokens.to(layer.compute_dtype), *others


@torch.no_grad()
def _dequantized(layer: Any) -> nn.Linear:  # noqa: ANN401 - bitsandbytes is optional
    with torch.device("meta"):
        plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    weight = _bitsandbytes().functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    plain.weight = nn.Parameter(weight.float(), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().float(), requires_grad=False)
    return plain.to(weight.device)


def _bitsandbytes() -> Any:  # noqa: ANN401 - a module of Python
    try:
        import bitsandbytes
    except ImportError as error:
        raise InputError("quantization: nf4 needs the library bitsandbytes: pip install -e '.[quantized]'.") from error
    return bitsandbytes
