"""Genuine Hypersim frames: what a mistake in units, signs or axes would look like in practice."""

import csv
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geometry import (
    camera_from_hypersim,
    camera_from_intrinsics,
    depth_from_ray_distance,
    face_camera,
    hypersim_nominal_intrinsics,
    normals_from_depth,
    pixel_rays,
    renormalize,
    resize_camera,
)
from tests.geometry.scenes import angle_deg

SAMPLES = Path(__file__).parents[2] / "../shared/samples/hypersim"
FRAME = "images/scene_cam_00_geometry_hdf5/frame.0000"

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real Hypersim samples are not here")


def read(scene: str, quantity: str) -> Tensor:
    import h5py

    with h5py.File(SAMPLES / "raw" / scene / f"{FRAME}.{quantity}.hdf5") as file:
        return torch.from_numpy(file["dataset"][:]).float()


def nearest(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image[None], size, mode="nearest-exact")[0]


@pytest.mark.parametrize(("size", "limit_deg"), [((768, 1024), 1.0), ((480, 640), 2.0)])
def test_normals_from_stored_depth_agree_with_the_stored_normals(size, limit_deg):
    """The project promises 3.5 degrees; measured 0.7 and 1.1, with depth stored as float16 a second time."""
    camera = camera_from_intrinsics(hypersim_nominal_intrinsics(768, 1024))
    full_rays = pixel_rays(camera, 768, 1024).float()
    raw_normals = read("ai_001_001", "normal_cam").permute(2, 0, 1)
    known = raw_normals.norm(dim=0, keepdim=True) > 0.5
    stored = face_camera(renormalize(raw_normals, known), full_rays)
    depth = depth_from_ray_distance(read("ai_001_001", "depth_meters")[None], full_rays)

    rays = pixel_rays(resize_camera(camera, (768, 1024), size), *size).float()
    depth, known = nearest(depth, size).half(), nearest(known.float(), size) > 0
    stored = F.interpolate(stored[None], size, mode="bilinear", antialias=True)[0]
    normals, mask = normals_from_depth(depth, rays, known)
    assert mask.float().mean() > 0.99
    errors = angle_deg(normals, renormalize(stored, known))[mask & known]
    assert errors.median() < limit_deg
    assert (errors < 30).float().mean() > 0.97


def tilt_shift_matrix() -> Tensor:
    with (SAMPLES / "meta/metadata_camera_parameters.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["scene_name"] == "ai_037_002")
    entries = [float(row[f"M_cam_from_uv_{i}{j}"]) for i in range(3) for j in range(3)]
    return torch.tensor(entries, dtype=torch.float64).view(3, 3)


def main_direction(normals: Tensor, guess: list[float]) -> Tensor:
    """Return the mean of the normals (N,3) within 2 degrees of it, starting within 8 degrees of a guess."""
    direction = torch.tensor(guess)
    for radius_deg in (8.0, 4.0, 2.0, 2.0, 2.0, 2.0):
        close = normals[normals @ direction > math.cos(math.radians(radius_deg))]
        direction = F.normalize(close.mean(dim=0), dim=0)
    return direction


def test_the_tilt_shift_camera_makes_a_real_room_rectangular():
    """Floor and back wall of ai_037_002 are square to each other with the scene's own camera alone."""
    distance = read("ai_037_002", "depth_meters")[None]
    off_square_deg = {}
    for name, camera in {
        "own": camera_from_hypersim(tilt_shift_matrix(), 768, 1024),
        "nominal": camera_from_intrinsics(hypersim_nominal_intrinsics(768, 1024)),
    }.items():
        rays = pixel_rays(camera, 768, 1024).float()
        depth = depth_from_ray_distance(distance, rays)
        normals, mask = normals_from_depth(depth, rays, depth > 0)
        normals = normals.movedim(0, -1)[mask[0]]
        floor, wall = main_direction(normals, [0.0, 1.0, 0.0]), main_direction(normals, [0.0, 0.0, 1.0])
        off_square_deg[name] = abs(math.degrees(math.asin(float(floor @ wall))))
    assert off_square_deg["own"] < 0.1
    assert off_square_deg["nominal"] > 0.5
