"""Where GPUs may round float32 to TF32."""

from typing import Literal

import torch

TF32 = Literal["none", "convolutions", "all"]


def set_tf32(where: TF32) -> None:
    """Allow or forbid TF32, which keeps 10 of the 23 bits behind the point, on the GPUs of this process.

    Args:
        where: ``none`` keeps float32 exact; ``convolutions`` is PyTorch's own default, and what the paper was
            trained with; ``all`` includes matrix products and is fastest.
    """
    # Not torch.backends.*.fp32_precision: once that is set, Lightning's reading of the older switches raises.
    torch.backends.cudnn.allow_tf32 = where != "none"
    torch.backends.cuda.matmul.allow_tf32 = where == "all"
