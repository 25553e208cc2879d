"""The options that the benchmarks of networks share."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch


class NetworkParser(argparse.ArgumentParser):
    """Reads device, size of network and image, and the file for the results; each benchmark adds its own options.

    Args:
        description: what the benchmark does.
        image_sizes: (height, width) by size of network, where the command line gives none.
    """

    def __init__(self, description: str | None, image_sizes: Mapping[str, tuple[int, int]]) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self._image_sizes = image_sizes
        device = "cuda" if torch.cuda.is_available() else "cpu"
        sizes = " or ".join(f"{height} {width}" for height, width in image_sizes.values())
        self.add_argument("--device", type=torch.device, default=device, help="cpu or cuda (default: %(default)s)")
        self.add_argument("--size", choices=image_sizes, default="tiny", help="toy base or SD 2 (default: %(default)s)")
        self.add_argument("--image_size", type=int, nargs=2, metavar=("H", "W"), help=f"by default {sizes}")
        self.add_argument("--out", type=Path, help="JSON file to write")

    def read(self) -> argparse.Namespace:
        """Return the options of the command line, ``image_size`` as (height, width)."""
        options = self.parse_args()
        options.image_size = tuple(options.image_size or self._image_sizes[options.size])
        return options
