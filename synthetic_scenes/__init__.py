"""Ray-cast rooms and streets with exact geometry, written in the raw layouts of Hypersim and Virtual KITTI 2.

They stand in for real data in the demo, in tests and in research; no training needs them.
"""

from typing import TYPE_CHECKING

from synthetic_scenes.raw_layout import SyntheticHypersim, SyntheticVirtualKitti

if TYPE_CHECKING:
    from synthetic_scenes.datamodule import SyntheticDataModule

__all__ = ["SyntheticDataModule", "SyntheticHypersim", "SyntheticVirtualKitti"]


def __getattr__(name: str) -> type:
    """Import the data module when it is asked for: those who render do not wait for Lightning."""
    if name != "SyntheticDataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from synthetic_scenes.datamodule import SyntheticDataModule

    return SyntheticDataModule
