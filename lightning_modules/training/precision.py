"""Which arithmetic training uses, and where GPUs may round float32 to TF32."""

from typing import Literal

import torch

from geometry.errors import InputError

TF32 = Literal["none", "convolutions", "all"]

# Lightning's names of the precisions that keep the weights in float32.
_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "32", "16", "bf16")


def check_precision(precision: object, option: str = "precision") -> None:
    """Check that the weights stay in float32.

    Args:
        precision: a name of Lightning's; None is its default.
        option: what it was given as, for the message.

    Raises:
        InputError: the weights would be kept in another type: halves lose the small updates of fine-tuning.
    """
    if precision is not None and str(precision) not in _PRECISIONS:
        raise InputError(
            f"{option} {precision} is not supported: the weights stay in float32. Choose bf16-mixed, 16-mixed or "
            "32-true."
        )


def set_tf32(where: TF32) -> None:
    """Allow or forbid TF32, which keeps 10 of the 23 bits behind the point, on the GPUs of this process.

    Args:
        where: ``none`` keeps float32 exact; ``convolutions`` is PyTorch's own default, and what the paper was
            trained with; ``all`` includes matrix products and is fastest.
    """
    # Not torch.backends.*.fp32_precision: once that is set, Lightning's reading of the older switches raises.
    torch.backends.cudnn.allow_tf32 = where != "none"
    torch.backends.cuda.matmul.allow_tf32 = where == "all"
