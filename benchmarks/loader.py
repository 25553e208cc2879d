"""How fast training data are read at real size, against a plain loader of PNG files, and where the time goes.

Run ``python -m benchmarks.loader --out loader.json`` from the folder of the project.

Contract: frames of 480x640 are prepared into shards of both formats and into PNG files (8-bit image, 16-bit depth in
millimetres, 8-bit normals; decoded by OpenCV into the same batches). All go through a DataLoader with the same number
of loader processes and take turns; with ``--others``, so do the loader of the paper's authors and other libraries.
Half of the images are mirrored. Reported per data set: samples per second by the clock, and the processor time that
loader processes and training process took per sample, on which other programs have little influence;
``per_core_and_second`` is its inverse, ``per_worker`` counts the loader processes alone. ``shards`` delivers packed
batches, as under a trainer, which expands them on its device; ``shards_expanded`` expands them on the CPU, in the
training process; both are of format 2. Scenes are rendered unless ``--hypersim`` names genuine frames.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lightning.pytorch import Trainer
from torch import Tensor

from benchmarks.measuring import Stopwatch, children, processor_seconds, report, summarize, use_one_thread
from benchmarks.other_loaders import COPIES, AuthorsFiles, PngFiles, file_batches, litdata, mosaic, write_png_files
from datamodules import DatasetSource, GeometryDataModule
from datamodules.prepare import main as prepare
from datamodules.shards import codecs
from datamodules.shards.files import scan_shard, write_shard
from datamodules.shards.manifest import read_dataset
from datamodules.streaming import batches, streams
from datamodules.streaming.packing import PackedBatch
from geometry.batch import GeometryBatch
from synthetic_scenes import SyntheticHypersim
from tests.helpers.tiny import tensors_of


def shard_batches(
    shards: Path, modalities: list[str], options: argparse.Namespace, packed: bool
) -> Iterator[GeometryBatch | PackedBatch]:
    """Yield training batches of shards without end: packed, as a GPU gets them, or expanded in this process."""
    data = GeometryDataModule(
        [DatasetSource(str(shards))],
        batch_size=options.batch_size,
        num_workers=options.workers,
        modalities=modalities,
        batches_per_epoch=1 << 30,
    )
    if packed:
        data.trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    data.setup("fit")
    try:
        yield from data.train_dataloader()
    finally:
        data.teardown("fit")


def touch(batch: GeometryBatch | PackedBatch | dict[str, Any]) -> float:
    """Read every memory page of a batch, as the copy to a device would."""
    return sum(float(tensor.view(-1)[:: 4096 // tensor.element_size()].sum()) for tensor in _tensors(batch))


def _tensors(batch: GeometryBatch | PackedBatch | dict[str, Any]) -> list[Tensor]:
    if isinstance(batch, PackedBatch):
        return [batch.buffer]
    if isinstance(batch, GeometryBatch):
        return list(tensors_of(batch).values())
    return [value for value in batch.values() if isinstance(value, Tensor)]


def measure(stream: Iterator[Any], workers: list[str], num_batches: int, batch_size: int) -> dict[str, float]:
    """Return wall and processor seconds per sample of the next batches."""
    processes = ["self", *workers]
    before = [processor_seconds(process) for process in processes]
    start, total = time.perf_counter(), 0.0
    for batch in islice(stream, num_batches):
        total += touch(batch)
    wall = time.perf_counter() - start
    spent = [processor_seconds(process) - then for process, then in zip(processes, before, strict=True)]
    count = num_batches * batch_size
    return {"wall": wall / count, "trainer": spent[0] / count, "workers": sum(spent[1:]) / count}


def makers_of(
    folders: dict[str, Path], modalities: list[str], options: argparse.Namespace
) -> dict[str, Callable[[], Iterator[Any]]]:
    """Return what makes the batches of every candidate."""
    size, workers = options.batch_size, options.workers
    makers: dict[str, Callable[[], Iterator[Any]]] = {
        "shards": lambda: shard_batches(folders["format_2"], modalities, options, packed=True),
        "shards_expanded": lambda: shard_batches(folders["format_2"], modalities, options, packed=False),
        "shards_format_1": lambda: shard_batches(folders["format_1"], modalities, options, packed=True),
        "png_files": lambda: file_batches(PngFiles(folders["png"], modalities), size, workers),
    }
    if options.others:
        makers["authors"] = lambda: file_batches(AuthorsFiles(folders["png"], modalities), size, workers)
        makers |= {name: partial(make, modalities, size, workers) for name, make in options.libraries.items()}
    return makers


def compare(folders: dict[str, Path], modalities: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of all loaders, which take turns."""
    makers = makers_of(folders, modalities, options)
    num_batches = max(1, options.samples // options.batch_size)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in makers}
    for _ in range(options.repeats):
        for name, make in makers.items():
            stream, others = make(), set(children())
            for _ in range(2 + 3 * options.workers):  # beyond what was prepared ahead
                next(stream)
            workers = sorted(set(children()) - others)
            measured[name].append(measure(stream, workers, num_batches, options.batch_size))
            stream.close()  # type: ignore[attr-defined]
    results: dict[str, Any] = {name: _figures(rows) for name, rows in measured.items()}
    for figure in ("samples_per_second", "per_core_and_second"):
        medians = {name: results[name][figure]["median"] for name in makers}
        results[f"ratio_{figure}"] = {
            name: round(medians["shards"] / median, 2) for name, median in medians.items() if name != "shards"
        }
    return results


def _figures(rows: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "samples_per_second": summarize([1 / row["wall"] for row in rows]),
        "per_core_and_second": summarize([1 / (row["trainer"] + row["workers"]) for row in rows]),
        "per_worker": summarize([1 / row["workers"] for row in rows if row["workers"]] or [float("nan")]),
        "worker_ms_per_sample": summarize([1000 * row["workers"] for row in rows]),
        "trainer_ms_per_sample": summarize([1000 * row["trainer"] for row in rows]),
    }


def stages(shards: Path, modalities: list[str], options: argparse.Namespace) -> dict[str, float]:
    """Return the milliseconds per sample that the stages of loading take, in this process."""
    watch = Stopwatch()
    places: list[tuple[str, Any, str]] = [
        ("read shard", streams.ShardReader, "read"),
        ("check and decode entries", batches, "decode_sample"),
        ("make batch", batches.BatchAssembler, "assemble"),
    ]
    names = {"jpg": "decode image", "png": "decode image", "blosc": "decompress depth"}
    with ExitStack() as patches:
        for stage, place, name in places:
            patches.enter_context(patch.object(place, name, watch.wrap(stage, getattr(place, name))))
        decoders = {kind: watch.wrap(names.get(kind, kind), decode) for kind, decode in codecs.DECODERS.items()}
        patches.enter_context(patch.dict(codecs.DECODERS, decoders))
        patches.enter_context(patch.object(codecs, "decode_codes", watch.wrap("decompress codes", codecs.decode_codes)))
        stream = shard_batches(shards, modalities, argparse.Namespace(**{**vars(options), "workers": 0}), packed=True)
        next(stream)
        watch.seconds.clear()
        num_batches = max(1, options.samples // options.batch_size)
        with watch.stage("rest"):
            for _ in islice(stream, num_batches):
                pass
    return watch.milliseconds(num_batches * options.batch_size)


def store_copies(once: Path, shards: Path, num_shards: int = 2) -> None:
    """Write a data set whose shards hold every sample of another one many times."""
    dataset = read_dataset(str(once))
    samples = [
        sample
        for shard in dataset.manifest.splits["train"]
        for sample in scan_shard(dataset.shard_url(shard), ("image", "depth", "normals", "info"))
    ]
    shards.mkdir()
    written = [
        write_shard(
            shards,
            f"train/frames-{number:06d}.tar",
            (replace(sample, key=f"{sample.key}-{copy}") for copy in range(COPIES) for sample in samples),
        )
        for number in range(num_shards)
    ]
    replace(dataset.manifest, splits={"train": written}).write(shards)


def prepare_frames(raw: Path, folder: Path) -> dict[str, Path]:
    """Prepare raw Hypersim frames, many times over, as shards of both formats and as PNG files; return the folders."""
    folders = {name: folder / name for name in ("once_1", "once_2", "format_1", "format_2", "png")}
    for number in ("1", "2"):
        once = folders[f"once_{number}"]
        words = ["hypersim", "--raw", str(raw), "--output", str(once), "--workers", "1", "--quiet"]
        if prepare([*words, "--shard_format", number]):
            raise SystemExit(f"{raw} cannot be prepared")
        store_copies(once, folders[f"format_{number}"])
    write_png_files(folders["once_1"], folders["png"])
    return folders


def libraries(once: Path, folder: Path) -> dict[str, Callable[..., Iterator[Any]]]:
    """Return the libraries that are installed, each with its own copy of the frames."""
    found = {}
    for name, make in {"mosaicml_streaming": mosaic, "litdata": litdata}.items():
        try:
            found[name] = make(once, folder / name)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=6, help="frames to render (default: %(default)s)")
    parser.add_argument("--hypersim", type=Path, help="raw folder of genuine Hypersim frames to use")
    parser.add_argument(
        "--others",
        action="store_true",
        help="the authors' loader, mosaicml-streaming and litdata, too",
    )
    parser.add_argument("--batch_size", type=int, default=4, help="samples per batch (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="loader processes (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=160, help="samples per repetition (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each loader (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    use_one_thread()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        raw = options.hypersim or folder / "raw"
        if not options.hypersim:
            SyntheticHypersim(frames_per_scene=1).write(raw, options.frames, workers=1)
        folders = prepare_frames(raw, folder)
        options.libraries = libraries(folders["once_1"], folder) if options.others else {}
        results = {
            f"image_{'_'.join(loaded)}": {
                **compare(folders, loaded, options),
                "stages_ms_per_sample": stages(folders["format_2"], loaded, options),
            }
            for loaded in (["depth"], ["depth", "normals"])
        }
    report("loader", {"batch_size": options.batch_size, "workers": options.workers, **results}, options.out)


if __name__ == "__main__":
    main()
