"""Numbers that the host knows, brought to where a tensor is."""

from collections.abc import Sequence

import torch
from torch import Tensor


def values_like(values: Sequence[float] | Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Return numbers as a tensor of the type and on the device of another one.

    ``Tensor.new_tensor`` does, too, but then the host waits until a GPU has done all that it was told before.

    Args:
        values: numbers, or rows of them.
        like: the other tensor.
    """
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)
