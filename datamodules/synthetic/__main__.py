"""The command ``python -m datamodules.synthetic hypersim|virtual_kitti``."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from datamodules.synthetic import SyntheticHypersim, SyntheticVirtualKitti
from datamodules.synthetic.rooms import STYLES
from datamodules.synthetic.streets import WEATHER
from geometry.errors import InputError, printable
from geometry.files.paths import path_argument
from geometry.one_line_parser import OneLineParser


def main(arguments: Sequence[str] | None = None) -> int:
    """Render what the command line asks for; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _data_set(options).write(options.out, options.frames, options.workers)
    except InputError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. Frames that were finished are kept; the same command renders all anew.", file=sys.stderr)
        return 130
    print(f"{options.frames} frames in {options.out}. To make shards of them:")
    print(f"python -m datamodules.prepare {options.layout} --raw {options.out} --out SHARDS")
    return 0


def _data_set(options: argparse.Namespace) -> SyntheticHypersim | SyntheticVirtualKitti:
    shared: dict[str, Any] = {"size": tuple(options.size), "antialias": options.antialias, "seed": options.seed}
    if options.layout == "hypersim":
        return SyntheticHypersim(
            frames_per_scene=options.frames_per_scene,
            val_fraction=options.val_fraction,
            tilt_shift_fraction=options.tilt_shift_fraction,
            style=STYLES[options.style],
            **shared,
        )
    return SyntheticVirtualKitti(conditions=tuple(options.conditions), cameras=tuple(options.cameras), **shared)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m datamodules.synthetic",
        description="Render scenes with exact depth and normals in a data set's own raw layout. Same seed, same files.",
    )
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="hypersim|virtual_kitti")
    hypersim = layouts.add_parser("hypersim", help="furnished rooms as Hypersim's HDF5 frames")
    _add_shared(hypersim, SyntheticHypersim())
    hypersim.add_argument("--frames-per-scene", type=int, default=2, help="images taken of each room (default: 2)")
    hypersim.add_argument(
        "--val-fraction", type=float, default=0.1, help="share of the rooms held out for validation (default: 0.1)"
    )
    hypersim.add_argument(
        "--tilt-shift-fraction",
        type=float,
        default=0.1,
        help="share of the rooms taken with a tilted sensor (default: 0.1)",
    )
    hypersim.add_argument(
        "--style",
        choices=STYLES,
        default="rooms",
        help="all kinds of rooms, or long halls with a flash (default: rooms)",
    )
    kitti = layouts.add_parser("virtual_kitti", help="streets as Virtual KITTI 2's JPEG and PNG frames")
    defaults = SyntheticVirtualKitti()
    _add_shared(kitti, defaults)
    kitti.add_argument(
        "--conditions",
        nargs="+",
        choices=list(WEATHER),
        default=defaults.conditions,
        metavar="NAME",
        help=f"conditions to render, of {', '.join(WEATHER)} (default: {' '.join(defaults.conditions)})",
    )
    kitti.add_argument("--cameras", nargs="+", type=int, choices=(0, 1), default=(0,), help="cameras (default: 0)")
    return parser


def _add_shared(parser: argparse.ArgumentParser, defaults: SyntheticHypersim | SyntheticVirtualKitti) -> None:
    parser.add_argument("--out", type=path_argument, required=True, help="folder to write into; made if it is missing")
    parser.add_argument("--frames", type=int, required=True, help="number of images")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other scenes (default: 0)")
    height, width = defaults.size
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=defaults.size,
        metavar=("H", "W"),
        help=f"frame size (default: {height} {width})",
    )
    parser.add_argument(
        "--antialias",
        type=int,
        default=defaults.antialias,
        help=f"colour rays per pixel in each direction (default: {defaults.antialias})",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")


if __name__ == "__main__":
    sys.exit(main())
