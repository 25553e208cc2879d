"""The command ``python -m datamodules.prepare hypersim|virtual_kitti|folder|merge|check|preview``."""

import argparse
import sys
from collections.abc import Sequence

from datamodules.preparation.checking import check_dataset
from datamodules.preparation.folder_options import folder_dataset
from datamodules.preparation.merging import merge_parts
from datamodules.preparation.options import add_folder, add_hypersim, add_virtual_kitti
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.preview import preview_dataset
from datamodules.preparation.run import prepare_dataset
from datamodules.preparation.summaries import SplitSummary
from datamodules.shards.manifest import FILE_NAME
from datamodules.sources.hypersim import Hypersim
from datamodules.sources.hypersim_frames import HypersimSelection
from datamodules.sources.protocol import RawDataset
from datamodules.sources.virtual_kitti import PRESETS, VirtualKitti
from geometry.errors import InputError, printable
from geometry.paths import folder_or_url, path_argument


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after the program's name; those of this process by default.

    Returns:
        Exit status: 0 if all went well, 1 if ``check`` found problems, 2 for input that cannot be used, 130 if stopped
        by Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except InputError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. What is finished is kept; to continue, run the same command again.", file=sys.stderr)
        return 130


def _run_hypersim(options: argparse.Namespace) -> int:
    selection = HypersimSelection(options.split_csv, tuple(options.file_list), tuple(options.splits), options.missing)
    raw = Hypersim(options.raw, tuple(options.size), options.normals, selection, options.camera_csv, options.name)
    return _prepare(raw, options)


def _run_virtual_kitti(options: argparse.Namespace) -> int:
    preset = PRESETS[options.preset]
    raw = VirtualKitti(
        options.raw,
        tuple(options.crop),
        options.normals,
        preset.val_scenes if options.val_scenes is None else tuple(options.val_scenes),
        preset.conditions if options.conditions is None else tuple(options.conditions),
        tuple(options.cameras),
        options.name,
    )
    return _prepare(raw, options)


def _run_folder(options: argparse.Namespace) -> int:
    return _prepare(folder_dataset(options), options)


def _prepare(raw: RawDataset, options: argparse.Namespace) -> int:
    shards = ShardOptions(
        options.samples_per_shard,
        options.image_format,
        options.image_quality,
        options.seed,
        options.max_invalid_ratio,
    )
    summaries = prepare_dataset(
        raw,
        options.out,
        shards,
        options.workers,
        options.overwrite,
        not options.quiet,
        report=_say,
        part=options.part,
        max_errors=options.max_errors,
    )
    _print_summaries(summaries)
    if (options.out / FILE_NAME).exists():
        print(f"Wrote {options.out}/{FILE_NAME}.")
    else:
        print(f"When all parts are finished: python -m datamodules.prepare merge {options.out} [OTHER FOLDERS]")
    return 0


def _say(notice: str) -> None:
    print(printable(notice))


def _run_merge(options: argparse.Namespace) -> int:
    _print_summaries(merge_parts(options.folders))
    print(f"Wrote {options.folders[0]}/{FILE_NAME}.")
    return 0


def _print_summaries(summaries: Sequence[SplitSummary]) -> None:
    print_table(
        ["split", "samples", "shards", "MB", "valid", "depth", "camera and normals"],
        [_summary_row(summary) for summary in summaries],
    )


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
    checks = check_dataset(options.shards, not options.quiet, options.compare_normals)
    rows = []
    for check in checks:
        nearest, farthest = check.depth_range_m
        valid = f"{100 * check.mean_valid_share:.1f} %"
        verdict = f"{len(check.problems)} problems" if check.problems else "good"
        depth = f"{nearest:.2f} .. {farthest:.2f} m"
        angle = "-" if check.normals_angle_deg is None else f"{check.normals_angle_deg:.1f} degrees"
        rows.append([check.split, str(check.samples), str(check.shards), valid, depth, angle, verdict])
    print_table(["split", "samples", "shards", "valid", "depth", "normals to depth", "verdict"], rows)
    problems = [problem for check in checks for problem in check.problems]
    for problem in problems[: options.max_lines]:
        print(printable(problem), file=sys.stderr)
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
    add_hypersim(commands).set_defaults(run=_run_hypersim)
    add_virtual_kitti(commands).set_defaults(run=_run_virtual_kitti)
    add_folder(commands).set_defaults(run=_run_folder)

    merge = commands.add_parser("merge", help="bring parts that were prepared with --part together in one data set")
    merge.add_argument(
        "folders",
        type=path_argument,
        nargs="+",
        metavar="OUT",
        help="the folder to complete, then the other parts' folders; their shards are linked or copied",
    )
    merge.set_defaults(run=_run_merge)

    check = commands.add_parser("check", help="compare every shard with dataset.json and every sample with the format")
    check.add_argument("shards", type=folder_or_url, help="folder or URL of a prepared data set")
    check.add_argument("--max-lines", type=int, default=20, help="number of problems to print (default: %(default)s)")
    check.add_argument(
        "--compare-normals",
        type=int,
        default=64,
        metavar="N",
        help="samples per split whose normals are compared with those computed from depth (default: %(default)s)",
    )
    check.add_argument("--quiet", action="store_true", help="show no progress bar")
    check.set_defaults(run=_run_check)

    preview = commands.add_parser("preview", help="make a contact sheet: image, depth and normals of a few samples")
    preview.add_argument("shards", type=folder_or_url, help="folder or URL of a prepared data set")
    preview.add_argument("--out", type=path_argument, required=True, help="image to write, .png or .jpg")
    preview.add_argument("--samples", type=int, default=4, help="samples to show per split (default: %(default)s)")
    preview.set_defaults(run=_run_preview)
    return parser


if __name__ == "__main__":
    sys.exit(main())
