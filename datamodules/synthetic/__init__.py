"""Ray-cast rooms and streets with exact geometry, written in the raw layouts of Hypersim and Virtual KITTI 2."""

from datamodules.synthetic.raw_layout import SyntheticHypersim, SyntheticVirtualKitti

__all__ = ["SyntheticHypersim", "SyntheticVirtualKitti"]
