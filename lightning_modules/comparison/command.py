"""The command ``python train.py compare``."""

import argparse
from collections.abc import Sequence

from geometry.errors import InputError
from geometry.files.paths import path_argument
from geometry.files.writing import write_whole
from lightning_modules.inference.arguments import parse


def main(arguments: Sequence[str]) -> int:
    """Compare evaluated runs with the first of them, and write tables and visualisations.

    Args:
        arguments: words after the command's name.

    Returns:
        Exit status 0.

    Raises:
        InputError: there are no results, or they have nothing in common.
    """
    options = parse(_parser(), arguments)
    from lightning_modules.command_line.tables import format_table
    from lightning_modules.comparison import tables
    from lightning_modules.comparison.runs import differing_settings, read_run
    from lightning_modules.comparison.visualisations import write_most_different
    from lightning_modules.evaluation.files import make_writable

    if len(options.runs) < 2 or len(set(options.runs)) < len(options.runs):
        raise InputError("compare needs two runs at least, each named once: python train.py compare RUN RUN.")
    for name, lowest in (("resamples", 100), ("num_images", 0)):
        if getattr(options, name) < lowest:
            raise InputError(f"--{name.replace('_', '-')} must be at least {lowest}, got {getattr(options, name)}.")
    runs = [read_run(run) for run in options.runs]
    metrics = tables.chosen_metrics(runs, options.metrics or [])
    comparisons = tables.compare_runs(runs, metrics, options.resamples, options.seed)
    rows, settings = tables.comparison_rows(comparisons, runs[0].name), differing_settings(runs)
    folder = options.output.expanduser()
    make_writable(folder, "--output")
    images, unpainted = write_most_different(runs, metrics, folder, options.num_images)
    notes = [*tables.remarks(runs, comparisons), *unpainted]
    write_whole(folder / "compare.md", tables.markdown(rows, settings, notes, images))
    write_whole(folder / "compare.csv", tables.csv_text(comparisons, runs[0].name))
    write_whole(folder / "compare.tex", tables.latex(rows, metrics))
    parts = [format_table(rows), format_table(settings) if len(settings) > 1 else "all settings are the same"]
    parts += ["\n".join(f"note: {note}" for note in notes)] if notes else []
    print("\n\n".join([*parts, f"compare.md, compare.csv, compare.tex and {len(images)} visualisations in {folder}"]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python train.py compare",
        description="Compare runs that were tested, image by image: every run against the first, with paired bootstrap "
        "intervals over images, the settings that differ, and the images where the runs differ most.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a test, such as runs/NAME/test, or of a run")
    parser.add_argument(
        "--metrics",
        action="append",
        metavar="NAME",
        help="metric to compare, once for each; all takes all (default: those that papers publish)",
    )
    parser.add_argument(
        "--output",
        type=path_argument,
        default="comparison",
        metavar="DIR",
        help="folder of tables and visualisations, whose former comparison is replaced (default: %(default)s)",
    )
    parser.add_argument(
        "--num-images", type=int, default=3, metavar="N", help="images shown per dataset and run (default: 3)"
    )
    parser.add_argument(
        "--resamples", type=int, default=10_000, metavar="N", help="resamples of each interval (default: 10000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples (default: 0)")
    return parser
