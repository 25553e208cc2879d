"""Upsampling to the nearest pixel, in a form whose gradient torch.compile gets right."""

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models.upsampling import Upsample2D


def make_upsampling_compilable(module: nn.Module) -> None:
    """Let the upsampling layers of a diffusers model repeat pixels wherever torch.compile compiles them.

    torch.compile writes interpolation to the nearest pixel as a gather of indexed pixels, and its gradient as a
    scatter into zeros. In torch 2.13, its backend for CPUs may read those zeros before it has scattered into them, so
    that the gradient of all that lies before the layer is exactly 0
    (https://github.com/pytorch/pytorch/issues/185509, mended by https://github.com/pytorch/pytorch/pull/185873: nodes
    that are fused forget which buffer they wait for; reordering for peak memory then moves them). The gradient of
    repeated pixels is a plain sum. It scatters nothing, on GPUs no atomic additions either, and is deterministic.
    Where nothing is compiled, the layers compute what they always did.

    Args:
        module: the model; its layers are changed in place.
    """
    from diffusers.models.upsampling import Upsample2D

    for layer in module.modules():
        if isinstance(layer, Upsample2D) and layer.interpolate and not layer.use_conv_transpose and layer.norm is None:
            layer.forward = MethodType(_upsample, layer)


def _upsample(
    layer: "Upsample2D",
    hidden_states: Tensor,
    output_size: Any = None,  # noqa: ANN401 - a size, or None: diffusers annotates int
    *args: Any,  # noqa: ANN401
    **kwargs: Any,  # noqa: ANN401
) -> Tensor:
    """Do as the layer does; under torch.compile, interpolate by repeating pixels."""
    height, width = (2 * side for side in hidden_states.shape[-2:])
    needed = (height, width) if output_size is None else tuple(output_size)
    is_crop = height - 1 <= needed[0] <= height and width - 1 <= needed[1] <= width
    if not torch.compiler.is_dynamo_compiling() or not is_crop:
        return type(layer).forward(layer, hidden_states, output_size, *args, **kwargs)
    doubled = double(hidden_states)[..., : needed[0], : needed[1]]
    if not layer.use_conv:
        return doubled
    convolution = layer.conv if layer.name == "conv" else layer.Conv2d_0
    assert convolution is not None
    return convolution(doubled)


def double(image: Tensor) -> Tensor:
    """Return an image at twice its size, every pixel repeated.

    Convention:
        Without its last row, or column, it is also the image interpolated to the nearest pixel at that odd size.

    Args:
        image: (B,C,H,W).

    Returns:
        (B,C,2H,2W).
    """
    batch, channels, height, width = image.shape
    repeated = image[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    return repeated.reshape(batch, channels, 2 * height, 2 * width)
