"""The command ``python -m datamodules.prepare hypersim|virtual_kitti|folder|merge|check|preview``."""

import argparse
import sys
from collections.abc import Sequence

from datamodules.preparation.checking import DEFAULT_COMPARED, ModalityCheck, check_dataset, comparable
from datamodules.preparation.merging import merge_parts
from datamodules.preparation.options import add_folder, add_hypersim, add_virtual_kitti
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.preview import preview_dataset
from datamodules.preparation.run import prepare_dataset
from datamodules.preparation.summaries import ModalitySummary, SplitSummary
from datamodules.shards.manifest import FILE_NAME
from geometry.errors import InputError, printable
from geometry.files.paths import folder_or_url, path_argument
from geometry.modalities import modality_named
from geometry.one_line_parser import OneLineParser


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


def _run_preparation(options: argparse.Namespace) -> int:
    shards = ShardOptions(
        options.samples_per_shard,
        options.image_format,
        options.image_quality,
        options.seed,
        options.max_invalid_ratio,
    )
    summaries = prepare_dataset(
        options.raw_dataset(options),
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
    for summary in summaries:
        for name, facts in summary.modalities.items():
            if summary.samples and facts.share == 0:
                raise InputError(
                    f"{options.out}: not one pixel of the split {summary.split} has valid {name}, so nothing can be "
                    "learnt from it. Check its unit and the range that counts as valid, then give --overwrite."
                )
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
    names = list(dict.fromkeys(name for summary in summaries for name in summary.modalities))
    print_table(
        ["split", "samples", "shards", "MB", *names, "origin"],
        [_summary_row(summary, names) for summary in summaries],
    )


def _summary_row(summary: SplitSummary, names: Sequence[str]) -> list[str]:
    return [
        summary.split,
        str(summary.samples),
        str(summary.shards),
        f"{summary.megabytes:.1f}",
        *(_values(name, summary.modalities.get(name)) for name in names),
        ", ".join(f"{name}: {count}" for name, count in summary.counts.items()),
    ]


def _values(name: str, found: ModalitySummary | ModalityCheck | None) -> str:
    """Return the share of known pixels and the range of values, as text."""
    if found is None:
        return "-"
    share = found.mean_share if isinstance(found, ModalityCheck) else found.share
    span = modality_named(name)().describe_range(found.minimum, found.maximum)
    return f"{100 * share:.1f} % known" + ("" if span == "-" else f", {span}")


def _difference(name: str, found: ModalityCheck) -> str:
    return "-" if found.difference is None else f"{found.difference:.1f} {modality_named(name).difference_unit}"


def _run_check(options: argparse.Namespace) -> int:
    compare = {name: getattr(options, f"compare_{name}") for name in comparable()}
    checks = check_dataset(options.shards, not options.quiet, compare)
    names = list(checks[0].modalities) if checks else []
    compared = [name for name in names if comparable().get(name) in names]
    rows = []
    for check in checks:
        verdict = f"{len(check.problems)} problems" if check.problems else "good"
        values = [_values(name, check.modalities[name]) for name in names]
        differences = [_difference(name, check.modalities[name]) for name in compared]
        rows.append([check.split, str(check.samples), str(check.shards), *values, *differences, verdict])
    titles = [f"{name} to {comparable()[name]}" for name in compared]
    print_table(["split", "samples", "shards", *names, *titles, "verdict"], rows)
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
    parser = OneLineParser(prog="python -m datamodules.prepare", description="Prepare data sets for training.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_hypersim(commands).set_defaults(run=_run_preparation)
    add_virtual_kitti(commands).set_defaults(run=_run_preparation)
    add_folder(commands).set_defaults(run=_run_preparation)

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
    for name, other in comparable().items():
        check.add_argument(
            f"--compare-{name}",
            dest=f"compare_{name}",
            type=int,
            default=DEFAULT_COMPARED,
            metavar="N",
            help=f"samples per split whose {name} are compared with those computed from {other} (default: %(default)s)",
        )
    check.add_argument("--quiet", action="store_true", help="show no progress bar")
    check.set_defaults(run=_run_check)

    preview = commands.add_parser(
        "preview", help="make a contact sheet: a few samples, each with its image and all modalities"
    )
    preview.add_argument("shards", type=folder_or_url, help="folder or URL of a prepared data set")
    preview.add_argument("--out", type=path_argument, required=True, help="image to write, .png or .jpg")
    preview.add_argument("--samples", type=int, default=4, help="samples to show per split (default: %(default)s)")
    preview.set_defaults(run=_run_preview)
    return parser


if __name__ == "__main__":
    sys.exit(main())
