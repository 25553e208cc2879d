"""Which of PyTorch's kernels computes attention."""

from contextlib import ExitStack
from typing import Literal

from torch.nn.attention import SDPBackend, sdpa_kernel

Attention = Literal["auto", "flash", "efficient", "cudnn", "math"]

# The one asked for first, then what takes over where it cannot: flash takes no heads as wide as the VAE's.
_ORDERS: dict[str, list[SDPBackend]] = {
    "flash": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "cudnn": [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "math": [SDPBackend.MATH],
}
_held = ExitStack()


def prefer_attention(kernel: Attention) -> None:
    """Choose the kernel of scaled dot-product attention in this process, in forward and backward pass alike.

    Not a context around the network: what is recomputed in the backward pass must use the same kernel, too.

    Args:
        kernel: ``auto`` leaves the choice to PyTorch; ``math`` is the formula written out, slow and large; where the
            others cannot be used, the next best takes over.
    """
    _held.close()
    if kernel != "auto":
        _held.enter_context(sdpa_kernel(_ORDERS[kernel], set_priority=True))
