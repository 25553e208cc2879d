"""Rendered scenes, prepared: depth and normals are those that the ray caster knows, through the camera of the scene."""

import cv2
import numpy as np
import pytest
import torch

from datamodules.sources.hypersim import Hypersim
from datamodules.sources.virtual_kitti import VirtualKitti
from geometry.camera import pixel_rays
from geometry.normals import normals_from_depth_finite_differences
from synthetic_scenes import SyntheticHypersim, SyntheticVirtualKitti

REAL_SIZES = pytest.mark.slow


def angle_deg(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b, axis=0), axis=0), (a * b).sum(axis=0)))


def render_room(folder, size, tilt_shift_fraction=1.0):
    rooms = SyntheticHypersim(size, frames_per_scene=1, tilt_shift_fraction=tilt_shift_fraction, seed=1)
    rooms.write(folder, 1, progress=False)
    return rooms, rooms.frame(0, 0)


def prepare_room(folder, size, **options):
    raw = Hypersim(folder, size, **options)
    return raw.load(raw.list_frames().splits["train"][0])


@pytest.mark.parametrize("size", [(96, 128), pytest.param((768, 1024), marks=REAL_SIZES)])
@pytest.mark.parametrize("tilt_shift_fraction", [0.0, 1.0])
def test_rooms_keep_their_depth_to_a_thousandth_and_their_normals_to_a_tenth_of_a_degree(
    tmp_path, size, tilt_shift_fraction
):
    _, truth = render_room(tmp_path, size, tilt_shift_fraction)
    sample = prepare_room(tmp_path, size, normals="native")
    stored, expected = sample.targets["depth"].astype(np.float16).astype(np.float64), truth.depth
    valid = (truth.entity_id >= 0) & (expected <= 64.9)
    assert (stored[truth.entity_id < 0] == 0).all() and stored.max() <= 65
    assert (np.abs(stored - expected)[valid] <= np.maximum(1e-3, 1e-3 * expected[valid])).all()
    assert angle_deg(sample.targets["normals"], np.moveaxis(truth.normals, -1, 0))[valid].max() < 0.1


def test_normals_from_prepared_depth_fit_a_tilted_room_through_its_own_camera_and_not_the_nominal_one(tmp_path):
    size = (192, 256)
    _, truth = render_room(tmp_path, size)
    expected = np.moveaxis(truth.normals, -1, 0)
    own = prepare_room(tmp_path, size, normals="from-depth")
    (tmp_path / "metadata_camera_parameters.csv").unlink()
    nominal = prepare_room(tmp_path, size, normals="from-depth")
    assert (own.info["camera"], nominal.info["camera"]) == ("scene", "nominal")
    known = (own.targets["normals"] != 0).any(axis=0) & (nominal.targets["normals"] != 0).any(axis=0)
    errors = {
        name: np.median(angle_deg(s.targets["normals"], expected)[known])
        for name, s in (("own", own), ("nominal", nominal))
    }
    assert errors["own"] < 0.5 and errors["nominal"] > 4


@pytest.mark.parametrize(
    ("size", "crop"), [((94, 310), (88, 304)), pytest.param((375, 1242), (352, 1216), marks=REAL_SIZES)]
)
def test_streets_keep_their_depth_and_their_edges(tmp_path, size, crop):
    """Measured at 375x1242 over two streets, at depth edges: see docs/data.md."""
    streets = SyntheticVirtualKitti(size, conditions=("clone",), antialias=1, seed=3)
    streets.write(tmp_path, 2, progress=False)
    raw = VirtualKitti(tmp_path, crop, val_scenes=())
    window = (slice(size[0] - crop[0], None), slice((size[1] - crop[1]) // 2, (size[1] + crop[1]) // 2))
    errors = {"discontinuity-aware": [], "finite differences": []}
    for frame in raw.list_frames().splits["train"]:
        truth = streets.frame(frame.scene, frame.condition, frame.number)
        sample, expected = raw.load(frame), truth.depth[window]
        valid = expected < 79.9
        stored = sample.targets["depth"].astype(np.float16).astype(np.float64)
        # The raw data are in whole centimetres.
        assert (np.abs(stored - expected)[valid] <= 0.005 + np.maximum(1e-3, 1e-3 * expected[valid])).all()
        assert (stored[~(expected < 80.1)] == 0).all()
        near_edge = edges(sample.targets["depth"])
        depth = torch.from_numpy(sample.targets["depth"])[None]
        rays = pixel_rays(torch.from_numpy(sample.camera_from_pixel), *crop, sample.pixel_center).float()
        plain = normals_from_depth_finite_differences(depth, rays, depth > 0)[0].numpy()
        for name, normals in (("discontinuity-aware", sample.targets["normals"]), ("finite differences", plain)):
            known = near_edge & (normals != 0).any(axis=0)
            errors[name].append(angle_deg(normals, np.moveaxis(truth.normals[window], -1, 0))[known])
    means = {name: np.concatenate(values).mean() for name, values in errors.items()}
    assert means["discontinuity-aware"] < means["finite differences"] / 3


def edges(depth):
    """Pixels within two pixels of a step in depth of a tenth or more, both sides known."""
    inverse = np.where(depth > 0, 1 / np.maximum(depth, 1e-3), np.nan).astype(np.float32)
    around = np.ones((5, 5), np.uint8)
    largest = cv2.dilate(np.nan_to_num(inverse, nan=0.0), around)
    smallest = cv2.erode(np.nan_to_num(inverse, nan=1e6), around)
    return (depth > 0) & (largest > 1.1 * smallest)
