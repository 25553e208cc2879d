"""How the values of a modality come out of a file of a Hypersim frame."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class TargetReader:
    """A modality in one of Hypersim's files; a module of this package holds one under the name ``READER``.

    Attributes:
        modality: its name.
        content: the file, one of ``hypersim_files.CONTENTS``.
        values: maps what the file stores, (H,W) or (H,W,3), and (H,W) bool, where there is an object, to values as the
            modality stores them, float32.
    """

    modality: str
    content: str
    values: Callable[[Array, Array], Array]
