"""How fast frames are prepared at real size, and where the time goes.

Run ``python -m benchmarks.prepare --out prepare.json`` from the folder of the project.

Contract: one process, one thread; after one frame to warm up, every frame is timed from raw files to encoded entries
(written nowhere). Times are processor time, so that other programs do not count; neither does waiting for the disk.
Scenes are rendered unless ``--hypersim`` names genuine frames. Reported are the median and the quartiles per frame, the
time spent in every stage without the stages inside it, and projections for the whole data sets.
"""

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.measuring import Stopwatch, report, summarize, use_one_thread
from datamodules.preparation import encoding
from datamodules.preparation.plan import ShardOptions
from datamodules.sources import hypersim, planar_frames, virtual_kitti
from datamodules.sources.hypersim import Hypersim
from datamodules.sources.protocol import RawDataset
from datamodules.sources.virtual_kitti import VirtualKitti
from geometry import modalities
from synthetic_scenes import SyntheticHypersim, SyntheticVirtualKitti

# Public frames of Hypersim's split table; five scenes x ten conditions x two cameras of Virtual KITTI 2.
TOTAL_FRAMES = {"hypersim": 74_619, "virtual_kitti": 42_520}

STAGES: list[tuple[str, Any, str]] = [
    ("read HDF5", hypersim.Hypersim, "_read"),
    ("tone map", hypersim, "tone_map"),
    ("resize image", hypersim, "resize_image"),
    ("resize depth", modalities.Depth, "resize"),
    ("resize normals", modalities.Normals, "resize"),
    ("orient normals", hypersim, "face_camera"),
    ("orient normals", hypersim, "renormalize"),
    ("planar depth", hypersim, "depth_from_ray_distance"),
    ("normals from depth", hypersim, "normals_from_depth"),
    ("normals from depth", planar_frames, "normals_from_depth"),
    ("decode image and depth", planar_frames, "read_image"),
    ("decode image and depth", virtual_kitti, "read_png"),
    ("compress image", encoding, "encode_image"),
    ("compress depth and normals", encoding, "encode_array"),
    ("statistics", modalities.Depth, "facts"),
    ("statistics", modalities.Normals, "facts"),
    ("statistics", encoding.ValueStatistics, "add_image"),
]


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
    median = float(np.median(seconds))
    total = TOTAL_FRAMES[raw.name]
    return {
        "frames": len(seconds),
        "frames_per_second_per_core": round(1 / median, 2),
        "milliseconds": summarize([1000 * value for value in seconds]),
        "stages_mean_milliseconds": watch.milliseconds(len(seconds)),
        "kilobytes_per_sample": round(float(np.mean(num_bytes)) / 1000, 1),
        "projection": {
            "frames": total,
            "core_hours": round(total * median / 3600, 2),
            "gigabytes": round(total * float(np.mean(num_bytes)) / 1e9, 1),
        },
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=6, help="frames to render of either kind (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="times that each frame is timed (default: %(default)s)")
    parser.add_argument("--hypersim", type=Path, help="raw folder of genuine Hypersim frames to use")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    use_one_thread()
    with tempfile.TemporaryDirectory() as scratch:
        rooms = options.hypersim or Path(scratch) / "rooms"
        if not options.hypersim:
            SyntheticHypersim(frames_per_scene=1).write(rooms, options.frames, workers=1)
        SyntheticVirtualKitti(antialias=1).write(Path(scratch) / "streets", options.frames, workers=1)
        results = {
            raw.name: measure(raw, options.repeats)
            for raw in (Hypersim(rooms), VirtualKitti(Path(scratch) / "streets"))
        }
    report("prepare", results, options.out)


if __name__ == "__main__":
    main()
