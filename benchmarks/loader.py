"""How fast training data are read at real size, against a plain loader of PNG files, and where the time goes.

Run ``python -m benchmarks.loader --out loader.json`` from the folder of the project.

Contract: frames of 480x640 are prepared once into shards and once into PNG files (8-bit image, 16-bit depth in
millimetres, 8-bit normals; decoded by OpenCV into the same batches). Both go through a DataLoader with the same number
of loader processes and take turns. Half of the images are mirrored. Reported per data set: samples per second by the
clock, and the processor time that loader processes and training process took per sample, on which other programs have
little influence; ``per_core_and_second`` is its inverse. ``shards`` delivers packed batches, as under a trainer, which
expands them on its device; ``shards_expanded`` expands them on the CPU, in the training process. Scenes are rendered
unless ``--hypersim`` names genuine frames.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.measuring import Stopwatch, children, processor_seconds, report, summarize, use_one_thread
from datamodules import DatasetSource, GeometryDataModule
from datamodules.prepare import main as prepare
from datamodules.shards import codecs
from datamodules.shards.files import decode_sample, iterate_shard, write_shard
from datamodules.shards.manifest import read_dataset
from datamodules.streaming import batches, streams
from datamodules.streaming.packing import PackedBatch
from datamodules.synthetic import SyntheticHypersim
from geometry.batch import GeometryBatch
from tests.helpers.tiny import tensors_of

# Times that every frame is stored, so that shards are long.
COPIES = 16


class PngFiles(Dataset):
    """Frames stored file by file, decoded in the obvious way.

    Args:
        folder: where ``write_png_files`` put them.
        modalities: what to load beside images and depth.
    """

    def __init__(self, folder: Path, modalities: list[str]) -> None:
        self.folder, self.modalities = folder, modalities
        self.names = sorted(path.name for path in (folder / "image").iterdir()) * COPIES

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, flip = self.names[index], index % 2 == 1
        image = self._read("image", name, flip)
        depth = self._read("depth", name, flip).astype(np.float32)[None] / 1000
        sample = {
            "image": torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1,
            "depth": torch.from_numpy(depth),
            "depth_mask": torch.from_numpy((depth > 1e-3) & (depth < 65)),
            "key": name,
        }
        if "normals" in self.modalities:
            normals = torch.from_numpy(self._read("normals", name, flip)).permute(2, 0, 1).float() / 127.5 - 1
            if flip:
                normals[0] *= -1
            length = normals.norm(dim=0, keepdim=True)
            sample["normals_mask"] = length > 0.5
            sample["normals"] = normals / length * sample["normals_mask"]
        return sample

    def _read(self, kind: str, name: str, flip: bool) -> np.ndarray:
        array = cv2.imread(str(self.folder / kind / name), cv2.IMREAD_UNCHANGED)
        if array.ndim == 3:
            array = cv2.cvtColor(array, cv2.COLOR_BGR2RGB)
        return cv2.flip(array, 1) if flip else array


def write_png_files(shards: Path, folder: Path) -> None:
    """Write the samples of a prepared data set as PNG files."""
    dataset = read_dataset(str(shards))
    for kind in ("image", "depth", "normals"):
        (folder / kind).mkdir(parents=True)
    for shard in dataset.manifest.splits["train"]:
        for sample in iterate_shard(dataset.shard_url(shard), ("image", "depth", "normals")):
            decoded = decode_sample(sample, ("image", "depth", "normals"))
            depth = np.rint(decoded["depth"].astype(np.float64) * 1000).astype(np.uint16)
            normals = np.rint(decoded["normals"].astype(np.float32).transpose(1, 2, 0) * 127.5 + 127.5).astype(np.uint8)
            images = {"image": decoded["image"][..., ::-1], "depth": depth, "normals": normals[..., ::-1]}
            for kind, image in images.items():
                cv2.imwrite(str(folder / kind / f"{sample.key}.png"), image)


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


def png_batches(folder: Path, modalities: list[str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield training batches of PNG files without end."""
    files = PngFiles(folder, modalities)
    persistent = options.workers > 0
    loader: DataLoader = DataLoader(
        files, options.batch_size, shuffle=True, num_workers=options.workers, persistent_workers=persistent
    )
    while True:
        yield from loader


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


def compare(shards: Path, png: Path, modalities: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of both loaders."""
    makers: dict[str, Callable[[], Iterator[Any]]] = {
        "shards": lambda: shard_batches(shards, modalities, options, packed=True),
        "shards_expanded": lambda: shard_batches(shards, modalities, options, packed=False),
        "png_files": lambda: png_batches(png, modalities, options),
    }
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
        pair = [results[name][figure]["median"] for name in ("shards", "png_files")]
        results[f"ratio_{figure}"] = round(pair[0] / pair[1], 2)
    return results


def _figures(rows: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "samples_per_second": summarize([1 / row["wall"] for row in rows]),
        "per_core_and_second": summarize([1 / (row["trainer"] + row["workers"]) for row in rows]),
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
    names = {"jpg": "decode image", "png": "decode image", "blosc": "decompress depth and normals"}
    with ExitStack() as patches:
        for stage, place, name in places:
            patches.enter_context(patch.object(place, name, watch.wrap(stage, getattr(place, name))))
        decoders = {kind: watch.wrap(names.get(kind, kind), decode) for kind, decode in codecs.DECODERS.items()}
        patches.enter_context(patch.dict(codecs.DECODERS, decoders))
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
        for sample in iterate_shard(dataset.shard_url(shard), ("image", "depth", "normals", "info"))
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


def prepare_frames(raw: Path, folder: Path) -> tuple[Path, Path]:
    """Prepare raw Hypersim frames, many times over, as shards and as PNG files; return both folders."""
    once, shards, png = folder / "once", folder / "shards", folder / "png"
    if prepare(["hypersim", "--raw", str(raw), "--out", str(once), "--workers", "1", "--quiet"]):
        raise SystemExit(f"{raw} cannot be prepared")
    write_png_files(once, png)
    store_copies(once, shards)
    return shards, png


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=6, help="frames to render (default: %(default)s)")
    parser.add_argument("--hypersim", type=Path, help="raw folder of genuine Hypersim frames to use")
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
        shards, png = prepare_frames(raw, folder)
        results = {
            f"image_{'_'.join(loaded)}": {
                **compare(shards, png, loaded, options),
                "stages_ms_per_sample": stages(shards, loaded, options),
            }
            for loaded in (["depth"], ["depth", "normals"])
        }
    report("loader", {"batch_size": options.batch_size, "workers": options.workers, **results}, options.out)


if __name__ == "__main__":
    main()
