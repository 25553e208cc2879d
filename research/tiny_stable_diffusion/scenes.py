"""Stage 1: rendered rooms and streets as images of colour, relative depth and normals."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datamodules.sources.hypersim import tone_map
from geometry import camera_from_intrinsics, hypersim_nominal_intrinsics, pixel_rays
from synthetic_scenes.render import Frame, render
from synthetic_scenes.rooms import STYLES, add_flash, random_pose, random_room
from synthetic_scenes.streets import WEATHER, random_drive, random_street

Array = np.ndarray
Scenes = dict[str, Array]

SIZES = {"rooms": (192, 256), "halls": (128, 192), "streets": (64, 224)}
"""Height and width of the images by kind. Rooms and halls are used at half of it, too."""


def render_scenes(work: Path, split: str, counts: dict[str, int]) -> dict[str, Scenes]:
    """Return rendered images by kind, from the work folder where they are already there.

    Args:
        work: folder that keeps them.
        split: "train", or another name for scenes that are in no training set.
        counts: number of images by kind, "rooms", "halls" and "streets".

    Returns:
        For each kind ``image`` (N,H,W,3) uint8, ``depth`` (N,H,W) float32 in metres with 0 where unknown,
        ``depth_range_m`` (N,2) float32, its 2 % and 98 % quantiles, ``relative_depth`` (N,H,W) float16, which is -1 and
        1 there, and ``normals`` (N,H,W,3) float16.
    """
    sets = {}
    for kind, count in counts.items():
        file = work / f"{split}-{kind}-{count}.npz"
        if not file.exists():
            jobs = [(kind, [0 if split == "train" else 1, number]) for number in range(count)]
            with ProcessPoolExecutor(2) as pool:
                images = list(tqdm(pool.map(_render_one, jobs, chunksize=4), f"{split} {kind}", count, smoothing=0))
            stacked = {key: np.stack([image[key] for image in images]) for key in images[0]}
            np.savez(file, allow_pickle=False, **stacked)
        with np.load(file) as arrays:
            sets[kind] = dict(arrays)
    return sets


def _render_one(job: tuple[str, list[int]]) -> Scenes:
    kind, seed = job
    rng = np.random.default_rng([*seed, list(SIZES).index(kind)])
    if kind == "streets":
        return _street(rng)
    style = STYLES[kind]
    scene, size = random_room(rng, style)
    pose = random_pose(rng, scene, size, style)
    if style.flash:
        add_flash(scene, pose, style.flash)
    frame = render(scene, pose, _rays(hypersim_nominal_intrinsics(*SIZES[kind]), SIZES[kind]))
    return _as_rgbs(frame, tone_map(frame.color, frame.entity_id >= 0), far_plane_m=65)


def _street(rng: np.random.Generator) -> Scenes:
    height, width = SIZES["streets"]
    weather = WEATHER[str(rng.choice(list(WEATHER)))]
    focal_length_px = 725.0087 * width / 1216
    intrinsics = torch.tensor([[focal_length_px, 0, width / 2], [0, focal_length_px, height / 2], [0, 0, 1]])
    rays = _rays(intrinsics, SIZES["streets"])
    frame = render(random_street(rng, weather), random_drive(rng, weather), rays, antialias=2)
    return _as_rgbs(frame, np.clip(frame.color, 0, 1) ** (1 / 2.2), far_plane_m=80)


def _rays(intrinsics: Tensor, size: tuple[int, int]) -> Array:
    return pixel_rays(camera_from_intrinsics(intrinsics), *size).numpy().astype(np.float32)


def _as_rgbs(frame: Frame, image: Array, far_plane_m: float) -> Scenes:
    valid = (frame.entity_id >= 0) & (frame.depth < far_plane_m)
    low, high = np.quantile(frame.depth[valid], [0.02, 0.98])
    relative = np.where(valid, (frame.depth - low) / max(high - low, 1e-3), 1).clip(0, 1) * 2 - 1
    return {
        "image": np.round(image * 255).astype(np.uint8),
        "depth": np.where(valid, frame.depth, 0).astype(np.float32),
        "depth_range_m": np.array([low, high], np.float32),
        "relative_depth": relative.astype(np.float16),
        "normals": np.where(valid[..., None], frame.normals, 0).astype(np.float16),
    }


def halve(values: Array, content: str) -> Array:
    """Return an image at half the resolution: images averaged, geometry downsampled to the nearest pixel."""
    if content != "image":
        return values[1::2, 1::2]
    return (values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]) / 4


def channels_first(values: Array) -> Tensor:
    """Return an image (H,W,C) as a tensor (C,H,W)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
