"""Checks a prepared data set: every shard against ``dataset.json``, every sample against the format."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from tqdm import tqdm

from datamodules.shards.files import decode_sample, iterate_shard
from datamodules.shards.manifest import (
    CHUNK_BYTES,
    MAX_BYTES_PER_PIXEL,
    Dataset,
    DatasetManifest,
    ShardInfo,
    open_url,
    read_dataset,
)
from datamodules.untrusted.json_text import is_finite_number
from datamodules.untrusted.text import shorten
from geometry.camera import pixel_rays
from geometry.errors import InputError
from geometry.limits import MAX_JSON_BYTES
from geometry.normals import normals_from_depth

# Stored normals that differ from those computed from depth by more, in the median over a sample, are in another frame.
MAX_NORMALS_ANGLE_DEG = 30.0
# float16 rounds a unit vector's length by less than this.
UNIT_TOLERANCE = 2e-3


@dataclass
class SplitCheck:
    """Findings about one split.

    Attributes:
        split: its name.
        shards: number of shards.
        samples: number of samples found.
        mean_valid_share: mean share of pixels with valid depth.
        depth_range_m: smallest and largest valid depth in metres.
        normals_angles_deg: of every sample compared, the median angle between stored normals and those computed
            from the stored depth.
        problems: one sentence per problem, naming shard and sample; empty if all is well.
    """

    split: str
    shards: int
    samples: int = 0
    mean_valid_share: float = 0.0
    depth_range_m: tuple[float, float] = (float("inf"), 0.0)
    normals_angles_deg: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def normals_angle_deg(self) -> float | None:
        """Median over the samples compared, in degrees; None if there were none."""
        return float(np.median(self.normals_angles_deg)) if self.normals_angles_deg else None


def check_dataset(path: str | Path, progress: bool = True, compare_normals: int = 64) -> list[SplitCheck]:
    """Check a prepared data set to its last byte.

    Args:
        path: folder or URL of the data set.
        progress: show a progress bar on stderr.
        compare_normals: number of samples per split, at even distances, whose normals are compared with those computed
            from their depth.

    Returns:
        The findings about every split.

    Raises:
        InputError: there is no usable ``dataset.json``.
    """
    dataset = read_dataset(path)
    checks = []
    for split, shards in dataset.manifest.splits.items():
        check = SplitCheck(split, len(shards))
        keys: set[str] = set()
        total = dataset.manifest.num_samples(split)
        stride = max(1, -(-total // compare_normals)) if compare_normals > 0 else 0
        with tqdm(total=total, desc=f"check {split}", unit="sample", disable=not progress) as bar:
            for shard in shards:
                check.problems.extend(_check_shard(dataset, shard, check, keys, bar, stride))
        check.mean_valid_share /= max(check.samples, 1)
        checks.append(check)
    return checks


def _check_shard(
    dataset: Dataset,
    shard: ShardInfo,
    check: SplitCheck,
    keys: set[str],
    bar: Any,  # noqa: ANN401
    stride: int,
) -> Iterator[str]:
    url, size = dataset.shard_url(shard), dataset.manifest.image_size
    found = 0
    try:
        with open_url(url) as stream:
            checksum = _sha256(stream, dataset.max_shard_bytes(shard))
        if checksum != shard.sha256:
            yield f"{url}: sha256 is {checksum}, dataset.json says {shard.sha256}"
        roles = (*dataset.manifest.entries, "info")
        for sample in iterate_shard(url, roles):
            found += 1
            bar.update()
            if sample.key in keys:
                yield f"{url}: sample {sample.key!r} exists twice"
            keys.add(sample.key)
            decoded = decode_sample(sample, roles, MAX_BYTES_PER_PIXEL * math.prod(size) + MAX_JSON_BYTES)
            problems = list(_check_sample(decoded, dataset.manifest, check))
            if not problems and "normals" in decoded and stride and (check.samples + found - 1) % stride == 0:
                problems.extend(_compare_normals(decoded, check))
            for problem in problems:
                yield f"{url}: sample {sample.key!r}: {problem}"
    except (InputError, OSError) as error:
        yield str(error) if url in str(error) else f"{url}: {error}"
    check.samples += found
    if found != shard.samples:
        yield f"{url}: holds {found} readable samples, dataset.json says {shard.samples}"


def _check_sample(sample: dict[str, Any], manifest: DatasetManifest, check: SplitCheck) -> Iterator[str]:
    size = manifest.image_size
    image, depth = sample["image"], sample["depth"].astype(np.float32)
    if image.shape[:2] != size or depth.shape != size:
        yield f"image is {image.shape[:2]}, depth {depth.shape}, dataset.json says {size}"
        return
    valid = depth != 0
    if not np.isfinite(depth).all() or (depth < 0).any():
        yield "depth holds NaN, infinite or negative numbers"
    elif valid.any():
        nearest, farthest = float(depth[valid].min()), float(depth.max())
        # The planes are rounded like the depth: to float16.
        if nearest < np.float16(manifest.near_plane_m) or farthest > np.float16(manifest.far_plane_m):
            yield f"depth from {nearest:.4g} m to {farthest:.4g} m leaves the near and far plane"
        check.depth_range_m = (min(check.depth_range_m[0], nearest), max(check.depth_range_m[1], farthest))
    check.mean_valid_share += float(valid.mean())
    if "normals" in sample:
        normals = sample["normals"].astype(np.float32)
        if normals.shape != (3, *size):
            yield f"normals are {normals.shape}, not {(3, *size)}"
            return
        length = np.sqrt(np.square(normals).sum(axis=0))
        if not np.isfinite(normals).all() or ((length > 0) & (abs(length - 1) > UNIT_TOLERANCE)).any():
            yield "normals are neither unit vectors nor zero"
    info = sample.get("info", {})  # the camera may be unknown
    camera = info.get("camera_from_pixel")
    if camera is not None and not _is_camera(camera):
        yield f"camera_from_pixel is {shorten(repr(camera))}, not a 3x3 matrix of numbers"
    pixel_center = info.get("pixel_center")
    if pixel_center is not None and not is_finite_number(pixel_center):
        yield f"pixel_center is {shorten(repr(pixel_center))}, not a number"


def _compare_normals(sample: dict[str, Any], check: SplitCheck) -> Iterator[str]:
    """Compare the normals of a sample without other problems with those computed from its depth."""
    info = sample.get("info", {})
    camera, pixel_center = info.get("camera_from_pixel"), info.get("pixel_center")
    if camera is None or pixel_center is None:
        return
    depth = torch.from_numpy(sample["depth"].astype(np.float32))[None]
    stored = torch.from_numpy(sample["normals"].astype(np.float32))
    try:
        height, width = sample["depth"].shape
        rays = pixel_rays(torch.tensor(camera, dtype=torch.float64), height, width, float(pixel_center)).float()
    except (InputError, TypeError, ValueError) as error:
        yield f"camera_from_pixel is of no use: {error}"
        return
    computed, mask = normals_from_depth(depth, rays, depth > 0)
    both = mask[0] & (stored != 0).any(dim=0)
    if not both.any():
        return
    cosine = (computed * stored).sum(dim=0)[both].clamp(-1, 1)
    angle_deg = float(torch.rad2deg(torch.acos(cosine)).median())
    check.normals_angles_deg.append(angle_deg)
    if angle_deg > MAX_NORMALS_ANGLE_DEG:
        yield (
            f"normals differ from those computed from depth by {angle_deg:.0f} degrees (median): are they in another "
            "frame, or is the camera another one?"
        )


def _sha256(stream: BinaryIO, max_bytes: int) -> str:
    checksum, num_bytes = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK_BYTES):
        checksum.update(chunk)
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise OSError(f"it has more than {max_bytes} bytes, which no such shard can have")
    return checksum.hexdigest()


def _is_camera(value: object) -> bool:
    rows = value if isinstance(value, list) else []
    return len(rows) == 3 and all(
        isinstance(row, list) and len(row) == 3 and all(map(is_finite_number, row)) for row in rows
    )
