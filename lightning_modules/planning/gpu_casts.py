"""Autocast on tensors that stand for those of a GPU: what autocast does on CPUs, and where GPUs are more careful.

On both, matrix products and convolutions are computed in half precision. On GPUs, normalisations and the like take
float32 in addition; what they put out is twice as large then, and is kept for the backward pass.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from geometry.torch_internals import cast_under_autocast

# Those of the operations that autocast computes in float32 on GPUs and not on CPUs which networks and losses use.
IN_FLOAT32 = (
    *("group_norm", "layer_norm", "native_layer_norm", "rms_norm", "softmax.int", "log_softmax.int"),
    *("exp", "log", "rsqrt", "reciprocal", "softplus", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar"),
    *("cosine_similarity", "kl_div", "l1_loss", "mse_loss", "smooth_l1_loss", "linalg_vector_norm"),
    *("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_nearest3d", "_upsample_nearest_exact3d"),
    *("upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa"),
)
# What asks for numbers. A tensor without values has none, and a step asks only where they are on the host.
_ASKING = frozenset({Tensor.tolist, Tensor.item})


@contextmanager
def gpu_casts() -> Iterator[None]:
    """Let autocast on a CPU put out what it would on a GPU."""
    with cast_under_autocast(IN_FLOAT32, torch.float32):
        yield


class AnsweringZero(TorchFunctionMode):
    """Answers 0 where tensors without values are asked for numbers."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run a function, or answer in its place."""
        if func in _ASKING:
            return _zeros(args[0].shape, args[0].dtype)
        return func(*args, **(kwargs or {}))


def _zeros(shape: torch.Size, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Return zeros as numbers in lists, as deep as a shape is long."""
    if not shape:
        return 0.0 if dtype.is_floating_point else 0
    return [_zeros(shape[1:], dtype) for _ in range(shape[0])]
