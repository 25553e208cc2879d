"""Focal length and shift from depth and normals: exact on exact scenes, with outliers too."""

import pytest
import torch

from geometry.camera import camera_from_intrinsics, pixel_rays
from geometry.camera_recovery import recover_camera
from geometry.errors import InputError

SIZE = (60, 80)


def scene(focal_length_px, planes=(((0.3, 0.1, 1), 4.0), ((-0.5, 0.2, 1), 3.0), ((0, 1, 0.2), 1.5))):
    """Return planar depth (H,W) and unit normals (3,H,W) of the nearest of several planes, seen by a pinhole."""
    height, width = SIZE
    intrinsics = torch.tensor([[focal_length_px, 0, width / 2], [0, focal_length_px, height / 2], [0, 0, 1]])
    rays = pixel_rays(camera_from_intrinsics(intrinsics.double()), height, width)
    depths, units = [], []
    for normal, distance in planes:
        unit = torch.nn.functional.normalize(torch.tensor(normal, dtype=torch.float64), dim=0)
        cosine = -(unit[:, None, None] * rays).sum(dim=0)
        depths.append(torch.where(cosine > 1e-3, distance / cosine.clamp(min=1e-3), torch.inf))
        units.append(unit)
    depth, index = torch.stack(depths).min(dim=0)
    return depth, torch.stack(units)[index].movedim(-1, 0)


@pytest.mark.parametrize("focal_length_px", [45.0, 70.0, 160.0])
@pytest.mark.parametrize("share_of_outliers", [0.0, 0.15])
def test_focal_length_and_shift_are_exact_whatever_some_pixels_say(focal_length_px, share_of_outliers):
    depth, normals = scene(focal_length_px)
    near, far = depth.min(), depth.max()
    relative = (depth - near) / (far - near)
    wrong = torch.rand(SIZE, generator=torch.Generator().manual_seed(0)) < share_of_outliers
    found = recover_camera(torch.where(wrong, 1 - relative, relative), normals)
    assert found.focal_length_px == pytest.approx(focal_length_px, rel=1e-3)
    assert found.shift == pytest.approx(float(near / (far - near)), rel=1e-2)


def test_depth_that_is_known_up_to_scale_needs_no_shift():
    depth, normals = scene(70.0)
    found = recover_camera(3 * depth, normals, is_shift_known=True)
    assert (found.focal_length_px, found.shift) == (pytest.approx(70, rel=1e-6), 0)


@pytest.mark.parametrize("planes", [[((0, 0, 1), 3.0)], [((0.3, 0.1, 1), 4.0)]])
def test_a_scene_that_says_too_little_is_refused_or_leaves_no_wrong_camera(planes):
    depth, normals = scene(70.0, planes)
    relative = (depth - depth.min()) / (depth.max() - depth.min()).clamp(min=1e-9)
    try:
        found = recover_camera(relative, normals)
    except InputError as error:
        assert "no camera makes depth and normals agree" in str(error)
    else:
        assert found.focal_length_px == pytest.approx(70, rel=1e-2)
