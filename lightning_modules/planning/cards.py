"""GPUs by name: their memory, and what their makers say that matrix products reach on them."""

import re
from dataclasses import dataclass

from geometry.errors import InputError

# What a process holds beside tensors: the context of CUDA and its libraries. And how much of the tensors' memory lies
# idle between them. Both are assumptions, not measured here.
CONTEXT_BYTES = round(0.8 * 2**30)
IDLE_SHARE = 0.04


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: its name.
        memory_bytes: its memory.
        half_tflops: dense bfloat16 matrix products; None is not known.
        tf32_tflops: float32 that is rounded to TF32.
        float32_tflops: float32.
    """

    name: str
    memory_bytes: int
    half_tflops: float | None = None
    tf32_tflops: float | None = None
    float32_tflops: float | None = None

    @property
    def room_bytes(self) -> int:
        """How much all tensors together may take at most."""
        return int((self.memory_bytes - CONTEXT_BYTES) / (1 + IDLE_SHARE))


# Memory in MiB as nvidia-smi shows it; TFLOP/s without sparsity, of the data sheets.
_CARDS = {
    "B200": (183_359, 2250, 1100, 75),
    "H200": (143_771, 989, 495, 67),
    "H100": (81_559, 989, 495, 67),
    "A100-80GB": (81_920, 312, 156, 19.5),
    "A100-40GB": (40_960, 312, 156, 19.5),
    "L40S": (46_068, 362, 183, 91.6),
    "RTX5090": (32_607, 209, 105, 105),
    "RTX4090": (24_564, 165, 82.6, 82.6),
    "RTX3090": (24_576, 71, 35.6, 35.6),
}


def card_names() -> tuple[str, ...]:
    """Return the names of the GPUs that are known."""
    return tuple(_CARDS)


def card_named(name: str) -> Card:
    """Return a GPU.

    Args:
        name: one of those that are known, such as H100, or an amount of memory, such as 24GB (GiB is meant, as with
            cards).

    Raises:
        InputError: it is neither.
    """
    plain = re.sub(r"[\s_]", "", name).upper()
    if amount := re.fullmatch(r"(\d+(?:\.\d+)?)GI?B", plain):
        return Card(name, int(float(amount[1]) * 2**30))
    for known, (mebibytes, *rates) in _CARDS.items():
        if known.upper() == plain:
            return Card(known, mebibytes << 20, *rates)
    raise InputError(
        f"there is no GPU {name!r} in the list: give one of {', '.join(_CARDS)}, or its memory, e.g. 24GB."
    )
