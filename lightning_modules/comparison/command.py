"""The command ``onestep compare``."""

from pathlib import Path
from typing import Annotated

from geometry.command_line import Command, Option
from geometry.errors import InputError
from geometry.files.writing import write_whole
from lightning_modules.command_line.console import quieten


def compare(
    runs: Annotated[list[str], Option(metavar="RUN")],
    /,
    metrics: Annotated[list[str] | None, Option(metavar="NAME")] = None,
    output: Annotated[Path, Option(metavar="DIR")] = Path("comparison"),
    num_images: int = 3,
    resamples: int = 10_000,
    seed: int = 0,
) -> None:
    """Compare runs that were tested, image by image.

    Every run is compared with the first, with paired bootstrap intervals over images, the settings that differ, and the
    images where the runs differ most.

    Args:
        runs: Folder of a test, such as runs/NAME/test, or of a run.
        metrics: Metrics to compare; all takes all. By default those that papers publish.
        output: Folder of tables and visualisations, whose former comparison is replaced.
        num_images: Images shown per dataset and run.
        resamples: Resamples of each interval.
        seed: Seed of the resamples.

    Raises:
        InputError: there are no results, or they have nothing in common.
    """
    from lightning_modules.command_line.tables import format_table
    from lightning_modules.comparison import tables
    from lightning_modules.comparison.runs import differing_settings, read_run, require_different
    from lightning_modules.comparison.visualisations import write_most_different
    from lightning_modules.evaluation.files import make_writable

    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise InputError("compare needs two runs at least, each named once: onestep compare RUN RUN.")
    for name, value, lowest in (("resamples", resamples, 100), ("num_images", num_images, 0)):
        if value < lowest:
            raise InputError(f"--{name} must be at least {lowest}, got {value}.")
    found = [read_run(run) for run in runs]
    require_different(found)
    chosen = tables.chosen_metrics(found, metrics or [])
    comparisons = tables.compare_runs(found, chosen, resamples, seed)
    rows, settings = tables.comparison_rows(comparisons, found[0].name), differing_settings(found)
    make_writable(output, "--output")
    images, unpainted = write_most_different(found, chosen, output, num_images)
    notes = [*tables.remarks(found, comparisons), *unpainted]
    write_whole(output / "compare.md", tables.markdown(rows, settings, notes, images))
    write_whole(output / "compare.csv", tables.csv_text(comparisons, found[0].name))
    write_whole(output / "compare.tex", tables.latex(rows, chosen))
    parts = [format_table(rows), format_table(settings) if len(settings) > 1 else "all settings are the same"]
    parts += ["\n".join(f"note: {note}" for note in notes)] if notes else []
    print("\n\n".join([*parts, f"compare.md, compare.csv, compare.tex and {len(images)} visualisations in {output}"]))


COMMAND = Command(compare, before=quieten)
