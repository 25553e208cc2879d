"""How fast frames are prepared at real size, and where the time goes.

Run ``python benchmarks/prepare.py --out prepare.json``.

Contract: one process, one thread; after one frame to warm up, every frame is timed from raw files to encoded entries
(written nowhere). Times are processor time, so that other programs do not count; neither does waiting for the disk.
Scenes are rendered unless ``--hypersim`` names genuine frames. Reported are the median and the quartiles per frame, the
time spent in every stage without the stages inside it, and projections for the whole data sets.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import h5py
import numpy as np
import torch

from datamodules.preparation import encoding
from datamodules.preparation.plan import ShardOptions
from datamodules.sources import hypersim, virtual_kitti
from datamodules.sources.hypersim import Hypersim
from datamodules.sources.protocol import RawDataset
from datamodules.sources.virtual_kitti import VirtualKitti
from datamodules.synthetic import SyntheticHypersim, SyntheticVirtualKitti

# Public frames of Hypersim's split table; five scenes x ten conditions x two cameras of Virtual KITTI 2.
TOTAL_FRAMES = {"hypersim": 74_619, "virtual_kitti": 42_520}

STAGES: list[tuple[str, Any, str]] = [
    ("read HDF5", hypersim.Hypersim, "_read"),
    ("tone map", hypersim, "tone_map"),
    ("resize image", hypersim, "resize_image"),
    ("resize depth", hypersim, "resize_nearest"),
    ("resize normals", hypersim, "resize_normals"),
    ("orient normals", hypersim, "face_camera"),
    ("orient normals", hypersim, "renormalize"),
    ("planar depth", hypersim, "depth_from_ray_distance"),
    ("normals from depth", hypersim, "normals_from_depth"),
    ("normals from depth", virtual_kitti, "normals_from_depth"),
    ("decode image and depth", virtual_kitti, "read_image"),
    ("compress image", encoding, "encode_image"),
    ("compress depth and normals", encoding, "encode_array"),
    ("statistics", encoding, "_describe"),
    ("statistics", encoding.SplitStatistics, "add_depth"),
]


class Stopwatch:
    """Adds up the time spent in named stages, without the stages inside them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._since = time.process_time()

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time counted."""

        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            with self.stage(stage):
                return function(*arguments, **named)

        return timed

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside."""
        self._turn(name)
        try:
            yield
        finally:
            self._turn(None)

    def _turn(self, stage: str | None) -> None:
        now = time.process_time()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now
        if stage is None:
            self._stack.pop()
        else:
            self._stack.append(stage)


def measure(raw: RawDataset, repeats: int) -> dict[str, Any]:
    """Return the figures for a raw data set."""
    options, watch, seconds, num_bytes = ShardOptions(), Stopwatch(), [], []
    frames = [frame for members in raw.list_frames().splits.values() for frame in members]
    encoding.encode_frame(raw, options, frames[0])
    with ExitStack() as patches:
        for stage, place, name in STAGES:
            patches.enter_context(patch.object(place, name, watch.wrap(stage, getattr(place, name))))
        for frame in frames * repeats:
            start = time.process_time()
            with watch.stage("other"):
                result = encoding.encode_frame(raw, options, frame)
            seconds.append(time.process_time() - start)
            num_bytes.append(result.statistics.num_bytes)
    low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    stages = {name: round(1000 * spent / len(seconds), 2) for name, spent in watch.seconds.items()}
    total = TOTAL_FRAMES[raw.name]
    return {
        "frames": len(seconds),
        "frames_per_second_per_core": round(1 / median, 2),
        "milliseconds": {"median": round(1000 * median, 1), "quartiles": [round(1000 * low, 1), round(1000 * high, 1)]},
        "stages_mean_milliseconds": dict(sorted(stages.items(), key=lambda item: -item[1])),
        "kilobytes_per_sample": round(float(np.mean(num_bytes)) / 1000, 1),
        "projection": {
            "frames": total,
            "core_hours": round(total * median / 3600, 2),
            "gigabytes": round(total * float(np.mean(num_bytes)) / 1e9, 1),
        },
    }


def describe_machine() -> dict[str, Any]:
    """Return commit, versions and hardware."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    cpu = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    return {
        "commit": git.stdout.strip(),
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (np, torch, cv2, h5py)},
        },
        "hardware": {"cpu": cpu.split(":")[-1].strip(), "cores": os.cpu_count(), "load": os.getloadavg()},
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=6, help="frames to render of either kind (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="times that each frame is timed (default: %(default)s)")
    parser.add_argument("--hypersim", type=Path, help="raw folder of genuine Hypersim frames to use")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        rooms = options.hypersim or Path(scratch) / "rooms"
        if not options.hypersim:
            SyntheticHypersim(frames_per_scene=1).write(rooms, options.frames, workers=1)
        SyntheticVirtualKitti(antialias=1).write(Path(scratch) / "streets", options.frames, workers=1)
        results = {
            raw.name: measure(raw, options.repeats)
            for raw in (Hypersim(rooms), VirtualKitti(Path(scratch) / "streets"))
        }
    document = {"benchmark": "prepare", **describe_machine(), "results": results}
    text = json.dumps(document, indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
