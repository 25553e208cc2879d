import numpy as np
import pytest
import torch

from geometry import inverse_depth
from geometry.padded_images import Padding, bits_of
from tests.geometry.scenes import cast, pinhole_rays, plane, step_edge, tilt_shift_rays

TOLERANCE = 2.0**-10


def tolerance_for(image: torch.Tensor) -> torch.Tensor:
    return torch.full_like(image, TOLERANCE)


def everywhere(image: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(image, dtype=torch.bool)


def laid_out(padding, *images):
    return [padding.pad(image.numpy(), 1.0) for image in images]


def smooth_inverse_depth(inverse, rays, valid, tolerance):
    """Of images (...,H,W): smoothed inverse depth, and x and y of the rays."""
    padding = Padding(*inverse.shape[-2:], 3)
    kept = padding.pad(bits_of(valid.numpy(), inverse.numpy().dtype), 0)
    inverse, rays, tolerance = laid_out(padding, inverse, rays[..., :2, :, :], tolerance)
    with np.errstate(all="ignore"):
        found = inverse_depth.smooth_inverse_depth(inverse, rays, kept, tolerance, padding)
    return [torch.from_numpy(padding.crop(values)[..., 3:-3, :].copy()) for values in found]


def discontinuity_aware_slope(inverse, rays, valid, noise, dim):
    """Of images (1,H,W) and rays (2,H,W), as images."""
    padding = Padding(*inverse.shape[-2:], 3)
    kept = padding.pad(bits_of(valid.numpy(), inverse.numpy().dtype), 0)
    inverse, rays, noise = laid_out(padding, torch.where(valid, inverse, 1.0), rays, noise)
    padding.repeat_edges(rays)
    band = slice(3 * padding.row, inverse.shape[-1] - 3 * padding.row)
    with np.errstate(all="ignore"):
        slope = inverse_depth.discontinuity_aware_slope(
            inverse, rays, kept, noise[..., band], band, 1 if dim == -1 else padding.row
        )
    slope = slope._replace(known=slope.known != 0)
    return inverse_depth.Slope(*(torch.from_numpy(padding.crop(values).copy()) for values in slope))


def test_smoothing_leaves_a_step_between_planes_as_it_is():
    rays = pinhole_rays()
    inverse = 1 / step_edge(rays)[0]
    smoothed, same_rays = smooth_inverse_depth(inverse, rays, everywhere(inverse), tolerance_for(inverse))
    torch.testing.assert_close(smoothed, inverse, rtol=1e-6, atol=0)
    torch.testing.assert_close(same_rays[:, 3:-3, 3:-3], rays[:2, 3:-3, 3:-3])


def test_smoothing_keeps_a_plane_a_plane_behind_a_tilted_lens():
    """Its rays do not run evenly over the pixels: averaged inverse depth fits only rays averaged alike."""
    rays = tilt_shift_rays()
    depth, normals = cast(rays, plane([0.3, -0.5, 0.8], -3.0))
    inverse = 1 / depth
    smoothed, smoothed_rays = smooth_inverse_depth(inverse, rays, everywhere(inverse), tolerance_for(inverse))
    smoothed_rays = torch.cat([smoothed_rays, rays[2:]])
    torch.testing.assert_close((normals * smoothed_rays).sum(0, keepdim=True) / -3.0, smoothed, rtol=1e-12, atol=0)
    assert ((normals * rays).sum(0, keepdim=True) / -3.0 - smoothed).abs().max() > 1e-7


def test_smoothing_removes_most_of_the_rounding_inside_a_plane():
    rays = pinhole_rays()
    depth, _ = cast(rays, plane([0.3, -0.5, 0.8], -3.0))
    inverse, rounded = 1 / depth, 1 / depth.half().double()
    smoothed, _ = smooth_inverse_depth(rounded, rays, everywhere(inverse), tolerance_for(inverse))
    assert (smoothed - inverse).std() < 0.4 * (rounded - inverse).std()


def test_smoothing_never_looks_at_invalid_pixels():
    rays = pinhole_rays(24, 32)
    inverse = 1 / cast(rays, plane([0.3, -0.5, 0.8], -3.0))[0].half().double()
    valid = torch.rand(inverse.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    clean, _ = smooth_inverse_depth(inverse, rays, valid, tolerance_for(inverse))
    for garbage in (0.0, 1.0003, -5.0, torch.inf, torch.nan):
        dirty = torch.where(valid, inverse, inverse * garbage)
        smoothed, _ = smooth_inverse_depth(dirty, rays, valid, tolerance_for(inverse))
        assert torch.equal(smoothed[valid], clean[valid])


def test_the_slope_next_to_a_step_is_that_of_the_surface_the_pixel_is_on():
    row = torch.tensor([1.0, 1.1, 1.2, 1.3, 3.0, 2.8, 2.6, 2.4], dtype=torch.float64)
    for dim in (-1, -2):
        inverse = row.view(1, 1, 8) if dim == -1 else row.view(1, 8, 1)
        rays = torch.zeros(2, *inverse.shape[1:], dtype=torch.float64)
        slope = discontinuity_aware_slope(inverse, rays, everywhere(inverse), tolerance_for(inverse), dim)
        expected = torch.tensor([0.1] * 4 + [-0.2] * 4, dtype=torch.float64)
        torch.testing.assert_close(slope.inverse_depth.flatten(), expected, atol=1e-4, rtol=0)
        assert slope.known.all()


def test_no_slope_is_taken_across_an_invalid_pixel():
    inverse = torch.tensor([1.0, 1.1, 9.0, 1.3, 1.4, 9.0, 1.6, 9.0], dtype=torch.float64).view(1, 1, 8)
    valid = inverse < 9
    rays = torch.arange(8.0, dtype=torch.float64).expand(2, 1, 8)
    slope = discontinuity_aware_slope(inverse, rays, valid, tolerance_for(inverse), -1)
    assert slope.known[valid].tolist() == [True, True, True, True, False]
    torch.testing.assert_close(slope.inverse_depth[slope.known & valid], torch.full((4,), 0.1, dtype=torch.float64))
    torch.testing.assert_close(slope.rays[:, slope.known[0] & valid[0]], torch.ones(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("garbage", [9.0, torch.inf, torch.nan])
def test_garbage_two_pixels_away_does_not_push_a_slope_over_an_edge(garbage):
    inverse = torch.tensor([garbage, 1.0, 1.1, 3.0, 3.1, 3.2], dtype=torch.float64).view(1, 1, 6)
    valid = torch.arange(6).view(1, 1, 6) > 0
    slope = discontinuity_aware_slope(inverse, torch.zeros(2, 1, 6).double(), valid, tolerance_for(inverse), -1)
    assert abs(slope.inverse_depth[0, 0, 2] - 0.1) < 0.02


def test_bend_is_zero_on_a_plane_and_large_where_both_neighbours_belong_elsewhere():
    inverse = torch.tensor([1.0, 1.1, 1.2, 5.0, 1.4, 1.5, 1.6, 1.7, 1.8], dtype=torch.float64).view(1, 1, 9)
    rays = torch.zeros(2, 1, 9, dtype=torch.float64)
    slope = discontinuity_aware_slope(inverse, rays, everywhere(inverse), tolerance_for(inverse), -1)
    assert slope.bend[0, 0, 3] > 0.5
    assert slope.bend[0, 0, 5] < 1e-3
