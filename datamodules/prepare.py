"""Prepare data sets for training: ``python -m datamodules.prepare hypersim|virtual_kitti|folder|check|preview``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from datamodules.checking import check_dataset
from datamodules.hypersim import Hypersim, NormalsSource
from datamodules.hypersim_frames import SPLITS, HypersimSelection
from datamodules.preparation import ShardOptions, SplitSummary, default_workers, prepare_dataset
from datamodules.prepare_folder import add_folder_options, folder_dataset
from datamodules.preview import preview_dataset
from datamodules.raw import RawDataset
from datamodules.virtual_kitti import VirtualKitti
from geometry.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after the program's name; those of this process by default.

    Returns:
        Exit status: 0 if all went well, 1 if ``check`` found problems, 2 for input that cannot be used.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run_hypersim(options: argparse.Namespace) -> int:
    selection = HypersimSelection(options.split_csv, tuple(options.file_list), tuple(options.splits), options.missing)
    raw = Hypersim(options.raw, tuple(options.size), options.normals, selection, options.camera_csv, options.name)
    return _prepare(raw, options)


def _run_virtual_kitti(options: argparse.Namespace) -> int:
    raw = VirtualKitti(
        options.raw,
        tuple(options.crop),
        options.normals,
        tuple(options.val_scenes),
        tuple(options.conditions),
        tuple(options.cameras),
        options.name,
    )
    return _prepare(raw, options)


def _run_folder(options: argparse.Namespace) -> int:
    return _prepare(folder_dataset(options), options)


def _prepare(raw: RawDataset, options: argparse.Namespace) -> int:
    shards = ShardOptions(options.samples_per_shard, options.image_format, options.image_quality, options.seed)
    summaries = prepare_dataset(raw, options.out, shards, options.workers, options.overwrite, not options.quiet)
    print_table(
        ["split", "samples", "shards", "MB", "valid", "depth", "camera and normals"],
        [_summary_row(summary) for summary in summaries],
    )
    print(f"Wrote {options.out}/dataset.json.")
    return 0


def _summary_row(summary: SplitSummary) -> list[str]:
    nearest, farthest = summary.depth_range_m
    return [
        summary.split,
        str(summary.samples),
        str(summary.shards),
        f"{summary.megabytes:.1f}",
        f"{100 * summary.mean_valid_share:.1f} %",
        f"{nearest:.2f} .. {farthest:.2f} m",
        ", ".join(f"{name}: {count}" for name, count in summary.counts.items()),
    ]


def _run_check(options: argparse.Namespace) -> int:
    checks = check_dataset(options.shards, progress=not options.quiet)
    rows = []
    for check in checks:
        nearest, farthest = check.depth_range_m
        valid = f"{100 * check.mean_valid_share:.1f} %"
        verdict = f"{len(check.problems)} problems" if check.problems else "good"
        depth = f"{nearest:.2f} .. {farthest:.2f} m"
        rows.append([check.split, str(check.samples), str(check.shards), valid, depth, verdict])
    print_table(["split", "samples", "shards", "valid", "depth", "verdict"], rows)
    problems = [problem for check in checks for problem in check.problems]
    for problem in problems[: options.max_lines]:
        print(problem, file=sys.stderr)
    if len(problems) > options.max_lines:
        print(f"... and {len(problems) - options.max_lines} more.", file=sys.stderr)
    return 1 if problems else 0


def _run_preview(options: argparse.Namespace) -> int:
    print(f"Wrote {preview_dataset(options.shards, options.out, options.samples)}.")
    return 0


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in aligned columns under a header."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.prepare", description="Prepare data sets for training."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_hypersim(commands)
    _add_virtual_kitti(commands)
    _add_folder(commands)

    check = commands.add_parser("check", help="compare every shard with dataset.json and every sample with the format")
    check.add_argument("shards", help="folder or URL of a prepared data set")
    check.add_argument("--max-lines", type=int, default=20, help="number of problems to print (default: %(default)s)")
    check.add_argument("--quiet", action="store_true", help="show no progress bar")
    check.set_defaults(run=_run_check)

    preview = commands.add_parser("preview", help="make a contact sheet: image, depth and normals of a few samples")
    preview.add_argument("shards", help="folder or URL of a prepared data set")
    preview.add_argument("--out", type=Path, required=True, help="picture to write, .png or .jpg")
    preview.add_argument("--samples", type=int, default=4, help="samples to show per split (default: %(default)s)")
    preview.set_defaults(run=_run_preview)
    return parser


def _add_hypersim(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("hypersim", help="prepare Hypersim", description="Prepare Hypersim's HDF5 frames.")
    _add_input_and_output(parser, "hypersim")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        default=(480, 640),
        help="size of the samples (default: 480 640)",
    )
    parser.add_argument(
        "--normals",
        choices=get_args(NormalsSource),
        default="auto",
        help="native: from normal_cam; from-depth: computed; auto: native where the file exists, else computed; "
        "none: leave normals out (default: %(default)s)",
    )
    parser.add_argument(
        "--split-csv",
        type=Path,
        help="metadata_images_split_scene_v1.csv (default: the one inside or beside RAW; without it, all frames "
        "are trained on)",
    )
    parser.add_argument(
        "--camera-csv",
        type=Path,
        help="metadata_camera_parameters.csv (default: the one in RAW; scenes without an entry get the nominal camera)",
    )
    parser.add_argument(
        "--file-list",
        type=Path,
        nargs="+",
        default=(),
        help="prepare only the frames in these lists (Marigold's format)",
    )
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="splits to prepare (default: all)")
    parser.add_argument(
        "--missing",
        choices=("auto", "skip", "error"),
        default="auto",
        help="listed frames that are not on disk: skip counts them, error stops; auto stops for --file-list and skips "
        "for the split table (default: %(default)s)",
    )
    parser.set_defaults(run=_run_hypersim)


def _add_virtual_kitti(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "virtual_kitti", help="prepare Virtual KITTI 2", description="Prepare Virtual KITTI 2 (release 2.0.3)."
    )
    _add_input_and_output(parser, "virtual_kitti")
    parser.add_argument(
        "--crop",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        default=(352, 1216),
        help="size of the samples, cut from the bottom, horizontally centred (default: 352 1216)",
    )
    parser.add_argument(
        "--normals",
        choices=("from-depth", "none"),
        default="from-depth",
        help="from-depth: compute normals; none: leave them out (default: %(default)s)",
    )
    parser.add_argument(
        "--val-scenes", nargs="*", default=("Scene01",), metavar="SCENE", help="scenes held out (default: Scene01)"
    )
    parser.add_argument(
        "--conditions",
        nargs="+",
        default=(),
        metavar="NAME",
        help="conditions to prepare: clone fog ... (default: all)",
    )
    parser.add_argument("--cameras", type=int, nargs="+", default=(), metavar="N", help="cameras: 0 1 (default: all)")
    parser.set_defaults(run=_run_virtual_kitti)


def _add_folder(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "folder", help="prepare your own images and depth", description="Prepare a folder of images with depth."
    )
    add_folder_options(parser)
    _add_input_and_output(parser, "folder", has_raw=False)
    parser.set_defaults(run=_run_folder)


def _add_input_and_output(parser: argparse.ArgumentParser, name: str, has_raw: bool = True) -> None:
    if has_raw:
        parser.add_argument("--raw", type=Path, required=True, help="folder of the data set as released")
    parser.add_argument("--out", type=Path, required=True, help="folder to write shards and dataset.json into")
    parser.add_argument("--name", default=name, help="name in logs and shard names (default: %(default)s)")
    parser.add_argument(
        "--samples-per-shard",
        type=int,
        default=256,
        metavar="N",
        help="samples in every shard; training reads a data set in as many parts at a time as it has shards, "
        "up to 48 (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=default_workers(),
        metavar="N",
        help="processes that read and encode frames; the result does not depend on it "
        "(default: one per core, %(default)s)",
    )
    parser.add_argument(
        "--image-format",
        choices=("jpg", "png"),
        default="jpg",
        help="jpg is small, png lossless (default: %(default)s)",
    )
    parser.add_argument(
        "--image-quality", type=int, default=95, metavar="Q", help="JPEG quality (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the order in which training frames go to shards (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a prepared data set in --out")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")


if __name__ == "__main__":
    sys.exit(main())
