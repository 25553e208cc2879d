"""Frozen layers that keep no more for the backward pass than the gradient of their input needs.

PyTorch keeps the input of every convolution for the gradient of its weight, wanted or not, and the input
of every activation. Where nothing trains but a gradient must pass, as in the VAE's decoder and in the frozen base under
low-rank adapters, the first is needed for nothing, and the second is cheap to compute anew from what the normalisation
before it keeps anyway. Values and gradients stay the same, bit for bit.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def keep_little(module: nn.Module) -> None:
    """Let the frozen convolutions, normalisations and activations in a module keep little; others stay as they are.

    Names and values of weights do not change, and copies may be saved and exported as ever.

    Args:
        module: any module; call this when it is known what trains.
    """
    for layer in module.modules():
        frozen = _FROZEN.get(type(layer))
        if frozen is not None and not any(weight.requires_grad for weight in layer.parameters(recurse=False)):
            layer.__class__ = frozen


def keep_as_ever(module: nn.Module) -> None:
    """Undo ``keep_little``: every layer is of PyTorch's own class again.

    Args:
        module: any module.
    """
    plain = {frozen: kind for kind, frozen in _FROZEN.items()}
    for layer in module.modules():
        if type(layer) in plain:
            layer.__class__ = plain[type(layer)]


class FrozenConv2d(nn.Conv2d):
    """A convolution that keeps nothing of its input."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of an image (B,C,H,W)."""
        # A compiler keeps only what is needed in any case; and what trains again needs its input.
        is_plain = torch.compiler.is_compiling() or any(weight.requires_grad for weight in self.parameters())
        if is_plain or self.padding_mode != "zeros" or isinstance(self.padding, str) or not _needs_gradient(input):
            return super().forward(input)
        options = (self.stride, self.padding, self.dilation, self.groups)
        return _Convolution.apply(input, self.weight, self.bias, options)


class FrozenGroupNorm(nn.GroupNorm):
    """A normalisation that keeps its input as it came, and tells the activation after it how its result comes about.

    Under autocast a GPU normalises in float32; PyTorch would keep the input in that type, twice as large.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised image (B,C,H,W)."""
        is_plain = torch.compiler.is_compiling() or any(weight.requires_grad for weight in self.parameters())
        if is_plain or not _needs_gradient(input):
            return super().forward(input)
        normalized = _Normalization.apply(input, self)
        normalized.normalized_from = (input, self)
        return normalized


class FrozenSiLU(nn.SiLU):
    """An activation that keeps the input of the normalisation before it, which is kept anyway, in place of its own."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the activation of values of any shape."""
        origin = getattr(input, "normalized_from", None)
        if origin is None or self.inplace:
            return super().forward(input)
        return _Activation.apply(input, *origin)


_FROZEN: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: FrozenConv2d,
    nn.GroupNorm: FrozenGroupNorm,
    nn.SiLU: FrozenSiLU,
}


def _needs_gradient(tensor: Tensor) -> bool:
    return torch.is_grad_enabled() and tensor.requires_grad


class _Convolution(torch.autograd.Function):
    """A convolution whose weight needs no gradient."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(weight)
        ctx.dtype, ctx.options = image.dtype, options
        ctx.shape, ctx.strides = image.shape, image.stride()
        ctx.is_laid_out_like_weight = _is_channels_last(image) == _is_channels_last(weight)
        return F.conv2d(image, weight, bias, *options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.options
        # PyTorch goes by shape and layout of the image alone. Where the weight does not imply the layout, it needs one.
        image = gradient.new_empty(1).expand(ctx.shape)
        if not ctx.is_laid_out_like_weight:
            image = gradient.new_empty_strided(ctx.shape, ctx.strides)
        weight = weight.to(gradient.dtype)  # under autocast the convolution was computed in the type of its gradient
        wanted, no_shift = (True, False, False), [0] * len(stride)
        input_gradient, _, _ = torch.ops.aten.convolution_backward(
            gradient, image, weight, None, stride, padding, dilation, False, no_shift, groups, wanted
        )
        return input_gradient.to(ctx.dtype), None, None, None


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


class _Autocast:
    """Autocast as it is now, to be had again later.

    Args:
        device: type of the device.
    """

    def __init__(self, device: str) -> None:
        self.device, self.is_known = device, torch.amp.is_autocast_available(device)
        self.enabled = self.is_known and torch.is_autocast_enabled(device)
        self.dtype = torch.get_autocast_dtype(device) if self.is_known else None

    def again(self) -> AbstractContextManager[Any]:
        """Return a context with autocast as it was."""
        return torch.autocast(self.device, self.dtype, enabled=self.enabled) if self.is_known else nullcontext()


class _Normalization(torch.autograd.Function):
    """A normalisation whose statistics are computed once more in the backward pass."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, norm: nn.GroupNorm) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(source)
        ctx.norm, ctx.autocast = norm, _Autocast(source.device.type)
        return nn.GroupNorm.forward(norm, source)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (source,) = ctx.saved_tensors
        with torch.enable_grad(), ctx.autocast.again():
            source = source.detach().requires_grad_()
            normalized = nn.GroupNorm.forward(ctx.norm, source)
        return *torch.autograd.grad(normalized, source, gradient), None


class _Activation(torch.autograd.Function):
    """SiLU of a normalisation's result, which is computed once more in the backward pass."""

    @staticmethod
    def forward(ctx: Any, normalized: Tensor, source: Tensor, norm: nn.GroupNorm) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(source)
        ctx.norm, ctx.autocast = norm, _Autocast(source.device.type)
        return F.silu(normalized)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (source,) = ctx.saved_tensors
        with ctx.autocast.again():
            normalized = nn.GroupNorm.forward(ctx.norm, source)
        return torch.ops.aten.silu_backward(gradient, normalized), None, None
