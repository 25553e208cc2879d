"""The commands ``onestep prepare hypersim|virtual_kitti|folder|merge|check|preview``."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any

from datamodules.preparation.checking import DEFAULT_COMPARED, ModalityCheck, check_dataset, comparable
from datamodules.preparation.merging import merge_parts
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.preview import preview_dataset
from datamodules.preparation.run import default_workers, prepare_dataset
from datamodules.shards.manifest import FILE_NAME, DatasetManifest
from datamodules.sources.protocol import RawDataset
from datamodules.sources.registry import raw_dataset_at, raw_datasets
from geometry.command_line import Command, Group, Option, say_new_spelling
from geometry.errors import InputError, printable
from geometry.files.paths import folder_or_url
from geometry.modalities import modality_named

Output = Annotated[Path, Option(also=("out",))]
Shards = Annotated[str, Option(parse=folder_or_url)]


def prepare(
    data_set: RawDataset,
    output: Output,
    shards: ShardOptions,
    workers: int = default_workers(),
    part: str = "1/1",
    max_errors: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> int:
    """Prepare a data set.

    Args:
        data_set: The data set.
        output: Folder to write shards and dataset.json into.
        shards: How samples are stored.
        workers: Processes that read and encode frames, by default one per core; the result does not depend on it.
        part: Prepare only every N-th shard, from the I-th on, for instance 3/8 on the third of eight machines; parts
            may share --output, or be brought together by prepare merge.
        max_errors: Broken samples to name and skip, per part; the next one stops the run.
        overwrite: Replace another data set in --output.
        quiet: Show no progress bar.
    """
    manifest = prepare_dataset(
        data_set, output, shards, workers, overwrite, not quiet, report=_say, part=_part(part), max_errors=max_errors
    )
    _print_summary(manifest)
    for split, counted in manifest.statistics.items():
        for name, facts in counted["modalities"].items():
            if counted["samples"] and facts["share"] == 0:
                raise InputError(
                    f"{output}: not one pixel of the split {split} has valid {name}, so nothing can be learnt "
                    "from it. Check its unit and the range that counts as valid, then give --overwrite."
                )
    if (output / FILE_NAME).exists():
        print(f"Wrote {output}/{FILE_NAME}.")
    else:
        print(f"When all parts are finished: onestep prepare merge {output} [OTHER FOLDERS]")
    return 0


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match:
        raise InputError(f"--part: expected I/N, for instance 3/8, not {text!r}.")
    return int(match[1]), int(match[2])


def _say(notice: str) -> None:
    print(printable(notice))


def merge(folders: list[Path], /) -> None:
    """Bring parts that were prepared with --part together in one data set.

    Args:
        folders: The folder to complete, then the other parts' folders; their shards are linked or copied.
    """
    _print_summary(merge_parts(folders))
    print(f"Wrote {folders[0]}/{FILE_NAME}.")


def _print_summary(manifest: DatasetManifest) -> None:
    try:
        rows = [_summary_row(manifest, split) for split in manifest.splits]
    except (KeyError, TypeError, AttributeError) as error:  # another program wrote it
        raise InputError(f"data set {manifest.name!r} holds no statistics of its splits ({error}).") from error
    print_table(["split", "samples", "shards", "MB", *manifest.modalities, "origin"], rows)


def _summary_row(manifest: DatasetManifest, split: str) -> list[str]:
    counted = manifest.statistics[split]
    found = [counted["modalities"].get(name) for name in manifest.modalities]
    counts = list(counted["counts"].items())
    counts += [(name.replace("_", " "), len(counted[name])) for name in ("skipped", "left_out") if counted[name]]
    return [
        split,
        str(counted["samples"]),
        str(len(manifest.splits[split])),
        f"{counted['num_bytes'] / 1e6:.1f}",
        *(
            _values(name, facts["share"], facts["min"], facts["max"]) if facts else "-"
            for name, facts in zip(manifest.modalities, found, strict=True)
        ),
        ", ".join(f"{name}: {count}" for name, count in counts),
    ]


def _values(name: str, share: float, minimum: float | None, maximum: float | None) -> str:
    """Return the share of known pixels and the range of values, as text."""
    span = modality_named(name)().describe_range(minimum, maximum)
    return f"{100 * share:.1f} % known" + ("" if span == "-" else f", {span}")


def _difference(name: str, found: ModalityCheck) -> str:
    return "-" if found.difference is None else f"{found.difference:.1f} {modality_named(name).difference_unit}"


def check(shards: Shards, /, compared: Any, max_lines: int = 20, quiet: bool = False) -> int:  # noqa: ANN401
    """Compare every shard with dataset.json and every sample with the format.

    Args:
        shards: Folder or URL of a prepared data set.
        compared: What is compared.
        max_lines: Number of problems to print.
        quiet: Show no progress bar.
    """
    checks = check_dataset(shards, not quiet, {name: getattr(compared, f"compare_{name}") for name in comparable()})
    names = list(checks[0].modalities) if checks else []
    compared_names = [name for name in names if comparable().get(name) in names]
    rows = []
    for found in checks:
        verdict = f"{len(found.problems)} problems" if found.problems else "good"
        values = [_values(name, one.mean_share, one.minimum, one.maximum) for name, one in found.modalities.items()]
        differences = [_difference(name, found.modalities[name]) for name in compared_names]
        rows.append([found.split, str(found.samples), str(found.shards), *values, *differences, verdict])
    titles = [f"{name} to {comparable()[name]}" for name in compared_names]
    print_table(["split", "samples", "shards", *names, *titles, "verdict"], rows)
    problems = [problem for found in checks for problem in found.problems]
    for problem in problems[:max_lines]:
        print(printable(problem), file=sys.stderr)
    if len(problems) > max_lines:
        print(f"... and {len(problems) - max_lines} more.", file=sys.stderr)
    return 1 if problems else 0


def comparisons() -> Callable[..., Any]:
    """Return a dataclass with an option for every modality that can be compared with another."""
    texts = ["What is compared.", "", "Attributes:"]
    for name, other in comparable().items():
        texts.append(
            f"    compare_{name}: Samples per split whose {name} are compared with those computed from {other}."
        )
    fields = [(f"compare_{name}", int, DEFAULT_COMPARED) for name in comparable()]
    return make_dataclass("Comparisons", fields, namespace={"__doc__": "\n".join(texts)})


def preview(shards: Shards, /, output: Output, samples: int = 4) -> None:
    """Make a contact sheet: a few samples, each with its image and all modalities.

    Args:
        shards: Folder or URL of a prepared data set.
        output: Image to write, .png or .jpg.
        samples: Samples to show per split.
    """
    print(f"Wrote {preview_dataset(shards, output, samples)}.")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in aligned columns under a header."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def commands() -> dict[str, Command]:
    """Return the commands by name: one for each registered data set, and those for prepared ones."""
    return {
        **{name: _preparation(factory) for name, factory in raw_datasets().items()},
        "merge": Command(merge),
        "check": Command(check, parts={"compared": comparisons()}),
        "preview": Command(preview),
    }


def _preparation(factory: Callable[..., RawDataset]) -> Command:
    kept = "What is finished is kept; to continue, run the same command again."
    return Command(prepare, parts={"data_set": factory}, kept=kept, title=factory)


GROUP = Group(
    "Prepare data sets for training; one of yours is named by its path, MODULE.FUNCTION.",
    commands,
    elsewhere=lambda path: _preparation(raw_dataset_at(path)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after the program's name; those of this process by default.

    Returns:
        Exit status: 0 if all went well, 1 if ``check`` found problems, 2 for input that cannot be used, 130 if stopped
        by Ctrl-C.
    """
    return GROUP.main(sys.argv[1:] if arguments is None else arguments, "onestep prepare")


if __name__ == "__main__":
    say_new_spelling("python -m datamodules.prepare", "onestep prepare")
    sys.exit(main())
