"""How start-up, order, resume, memory and dataset.json grow with shards, samples and ranks, by simulation.

Run ``python -m benchmarks.scale --out scale.json`` from the folder of the project. No shard is read or written.

Contract: a data set of as many shards and samples as it says is described in a ``dataset.json`` of its own, in a
process of its own. Reported per case: bytes of ``dataset.json``; processor time to read it, to yield the first
micro-step of the last rank (a start), to yield it after so many micro-steps (a resume), and per micro-step after that;
and by how much the process's memory grew at most.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT, report
from datamodules.shards.manifest import FILE_NAME, DatasetManifest, ShardInfo, read_dataset
from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.epoch_order import EpochOrder
from datamodules.streaming.loading import Workers
from datamodules.streaming.micro_steps import Readers, micro_steps
from datamodules.streaming.order import Segment
from datamodules.streaming.train_order import ORDER_VERSION, OpenSource, TrainOrder

# Shards, samples, ranks, micro-steps so far: each larger than the one before in one way.
CASES = [
    (1_000, 10**7, 8, 10_000),
    (10_000, 10**7, 8, 10_000),
    (100_000, 10**7, 8, 10_000),
    (100_000, 10**9, 8, 10_000),
    (100_000, 10**9, 64, 10_000),
    (100_000, 10**9, 512, 10_000),
    (100_000, 10**9, 512, 1_000_000),
]
_BATCH_SIZE, _STREAMS, _BLOCK, _STEPS = 4, 48, 1_000, 200


def _seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return round(time.process_time() - start, 4), result


def _memory_mb(field: str) -> float:
    """Return what the kernel says of this process's resident memory: VmRSS is now, VmHWM the most since the reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def measure(folder: Path, world_size: int, num_steps: int) -> dict[str, Any]:
    """Return the figures of one case, in this process.

    Args:
        folder: of the ``dataset.json``.
        world_size: number of ranks.
        num_steps: micro-steps before the resume.
    """
    Path("/proc/self/clear_refs").write_text("5")  # of a process that was forked, the peak is its parent's
    before = _memory_mb("VmRSS")
    reading, dataset = _seconds(lambda: read_dataset(folder))
    assembler = BatchAssembler("scale", dataset.manifest, ("depth",))
    source = OpenSource(dataset, assembler, 1.0, "train")
    order = TrainOrder(0, (source,), _STREAMS, _BLOCK, 0.5)
    workers = Workers(world_size - 1, world_size)
    started, portions = _seconds(lambda: _begun(order, [], workers))
    history = [Segment(num_steps, world_size, _BATCH_SIZE)]
    resumed, portions = _seconds(lambda: _begun(order, history, workers))
    stepping, taken = _seconds(lambda: list(islice(portions, _STEPS)))
    readers = Readers(order, ORDER_VERSION)
    placing, _ = _seconds(lambda: [readers.of(portion) for portion in taken])
    places = EpochOrder(order.seed, "scale", source.shard_sizes, _BLOCK)
    laying_out, _ = _seconds(lambda: places.place(0, 0))
    fingerprinting, _ = _seconds(order.fingerprint)
    return {
        "dataset_json_mb": round((folder / FILE_NAME).stat().st_size / 1e6, 2),
        "read_dataset_json_s": reading,
        "start_s": started,
        "resume_s": resumed,
        "ms_per_micro_step": round(1000 * stepping / _STEPS, 4),
        "readers_of_all_streams_s": placing,
        "shards_of_an_epoch_s": laying_out,
        "state_of_a_checkpoint_s": fingerprinting,
        "peak_growth_mb": round(_memory_mb("VmHWM") - before, 1),
    }


def _begun(order: TrainOrder, history: list[Segment], workers: Workers) -> Any:  # noqa: ANN401
    portions = micro_steps(order, ORDER_VERSION, history, workers, _BATCH_SIZE)
    next(portions)
    return portions


def write_manifest(folder: Path, num_shards: int, num_samples: int) -> None:
    """Write a ``dataset.json`` of so many shards without writing them."""
    names = (f"train/hypersim-train-{number:06d}.tar" for number in range(num_shards))
    each = num_samples // num_shards
    shards = [ShardInfo(name, each, f"{number:064x}") for number, name in enumerate(names)]
    entries, ranges = ("image", "depth"), {"depth": (0.1, 9.0)}
    DatasetManifest("hypersim", (480, 640), entries, {"train": shards}, ranges).write(folder)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--case", nargs=3, metavar=("FOLDER", "RANKS", "STEPS"), help="one case, in this process")
    options = parser.parse_args()
    if options.case:
        folder, world_size, num_steps = options.case
        print(json.dumps(measure(Path(folder), int(world_size), int(num_steps))))
        return
    results = {}
    for num_shards, num_samples, world_size, num_steps in CASES:
        with tempfile.TemporaryDirectory() as folder:
            write_manifest(Path(folder), num_shards, num_samples)
            words = [sys.executable, "-m", "benchmarks.scale", "--case", folder, str(world_size), str(num_steps)]
            text = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        name = f"{num_shards} shards, {num_samples} samples, {world_size} ranks, step {num_steps}"
        results[name] = json.loads(text.strip().splitlines()[-1])
    report("scale", results, options.out)


if __name__ == "__main__":
    main()
