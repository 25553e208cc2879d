import pytest
import torch

from geometry import (
    InputError,
    camera_from_intrinsics,
    convert_frame,
    face_camera,
    flip_horizontal,
    normals_from_depth,
    normals_from_depth_finite_differences,
    padded_images,
    pixel_rays,
    renormalize,
    unproject,
)
from tests.geometry.scenes import (
    angle_deg,
    at_depth_edges,
    box_room,
    cast,
    pinhole_rays,
    plane,
    sphere,
    step_edge,
    tilt_shift_rays,
    vector,
)

METHODS = [normals_from_depth, normals_from_depth_finite_differences]
HEAD_ON, FLOOR, LEFT_WALL = ([0, 0, 1], -2.0), ([0, 1, 0], -1.5), ([1, 0, 0], -1.5)
SLANTED = ([0.3, -0.5, 0.8], -3.0)


def everywhere(depth: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(depth, dtype=torch.bool)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("surface", [HEAD_ON, FLOOR, LEFT_WALL, SLANTED], ids=["head-on", "floor", "left", "slanted"])
@pytest.mark.parametrize("camera", ["pinhole", "tilt-shift", "virtual-kitti"])
def test_the_normal_of_a_plane_is_exact_sign_included(method, surface, camera):
    rays = {
        "pinhole": pinhole_rays,
        "tilt-shift": tilt_shift_rays,
        "virtual-kitti": lambda: pinhole_rays(pixel_center=0.0),
    }[camera]()
    depth, expected = cast(rays, plane(*surface))
    seen = (depth > 0) & (depth < 20)
    normals, mask = method(depth.float(), rays.float(), seen)
    assert mask.sum() > 0.6 * seen.sum()
    assert angle_deg(normals, expected)[mask].max() < 0.02
    known = normals.movedim(-3, -1)[mask[..., 0, :, :]]
    torch.testing.assert_close(known.norm(dim=-1), torch.ones(len(known)))
    in_float64 = method(depth, rays, seen)[0]
    assert in_float64.dtype == torch.float64
    assert angle_deg(in_float64, expected)[mask].max() < 1e-5


def test_planes_reach_the_border_of_the_image():
    rays = pinhole_rays(8, 10)
    depth, _ = cast(rays, plane(*SLANTED))
    assert normals_from_depth(depth, rays, everywhere(depth))[1].all()


def test_float32_is_exact_at_full_resolution():
    rays = pinhole_rays(768, 1024)
    depth, expected = cast(rays, plane(*SLANTED))
    normals, _ = normals_from_depth(depth.float(), rays.float(), everywhere(depth), relative_error=0.0)
    errors = angle_deg(normals, expected)
    assert errors.median() < 0.01
    assert errors.max() < 0.1


def test_a_sphere_is_round():
    rays = pinhole_rays()
    depth, expected = cast(rays, plane([0, 0, 1], -4.0), sphere([0, 0, -3], 0.8))
    on_sphere = (unproject(depth, rays) - vector([0, 0, -3])).norm(dim=0, keepdim=True) < 0.81
    normals, mask = normals_from_depth(depth.float(), rays.float(), everywhere(depth))
    errors = angle_deg(normals, expected)
    frontal = on_sphere & (expected[2:] > 0.6)
    assert mask.all()
    assert errors[frontal].mean() < 0.4
    assert errors[on_sphere].mean() < 1.0
    assert normals[0, 48, 64 + 15] > 0.3
    assert normals[1, 48 - 15, 64] > 0.3


def test_no_normal_is_made_of_two_surfaces_at_a_step():
    rays = pinhole_rays()
    depth, expected = step_edge(rays)
    edge = at_depth_edges(depth)
    plain, plain_mask = normals_from_depth_finite_differences(depth.float(), rays.float(), everywhere(depth))
    aware, mask = normals_from_depth(depth.float(), rays.float(), everywhere(depth))
    assert mask.all()
    assert edge.sum() > 100
    assert angle_deg(aware, expected).max() < 0.1
    assert angle_deg(plain, expected)[plain_mask & edge].mean() > 30


def test_edges_of_boxes_and_spheres_are_several_times_better_than_with_finite_differences():
    rays = pinhole_rays(192, 256)
    depth, expected = box_room(rays)
    edge = at_depth_edges(depth)
    for stored in (depth.float(), depth.half().float()):
        plain, plain_mask = normals_from_depth_finite_differences(stored, rays.float(), everywhere(depth))
        aware, mask = normals_from_depth(stored, rays.float(), everywhere(depth))
        plain_error, aware_error = angle_deg(plain, expected), angle_deg(aware, expected)
        assert aware_error[mask & edge].mean() < 0.2 * plain_error[plain_mask & edge].mean()
        assert aware_error[mask & ~edge].mean() < 0.7 * plain_error[plain_mask & ~edge].mean()
        assert (normals_facing_away := ((aware * rays).sum(0) > 1e-6).sum()) == 0, normals_facing_away


def test_rounding_to_float16_is_averaged_out():
    rays = pinhole_rays(192, 256)
    depth, expected = cast(rays, plane(*SLANTED))
    stored = depth.half()
    assert angle_deg(normals_from_depth_finite_differences(stored, rays, everywhere(depth))[0], expected).median() > 1
    assert angle_deg(normals_from_depth(stored, rays, everywhere(depth))[0], expected).median() < 0.15


def test_rounding_to_centimetres_is_averaged_out_where_it_is_named():
    rays = pinhole_rays(192, 256)
    depth, expected = cast(rays, plane([0.2, 1, 0.1], -1.6))
    near = (depth > 0) & (depth < 8)
    stored = (depth * 100).round() / 100
    errors = [
        angle_deg(normals_from_depth(stored, rays, near, relative_error=0.0, error_m=error_m)[0], expected)[near].mean()
        for error_m in (0.005, 0.0)
    ]
    assert errors[0] < 0.4
    assert errors[1] > 2 * errors[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("garbage", [0.0, -1.0, 1e4, torch.inf, torch.nan])
def test_what_is_invalid_never_enters_a_normal(method, garbage):
    rays = pinhole_rays(24, 32)
    depth, expected = cast(rays, plane(*SLANTED))
    valid = torch.rand(depth.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    normals, mask = method(torch.where(valid, depth, garbage), rays, valid)
    assert mask.any() and not mask[~valid].any()
    assert angle_deg(normals, expected)[mask].max() < 1e-5
    assert (normals[~mask.expand_as(normals)] == 0).all()


@pytest.mark.parametrize("garbage", [0.0, -1.0, torch.inf, torch.nan])
def test_depth_that_is_none_is_left_out_even_if_the_mask_forgets_it(garbage):
    rays = pinhole_rays(24, 32)
    depth, expected = cast(rays, plane(*SLANTED))
    depth[0, 10, 12] = garbage
    normals, mask = normals_from_depth(depth, rays, everywhere(depth))
    assert not mask[0, 10, 12]
    assert mask.sum() == mask.numel() - 1
    assert angle_deg(normals, expected)[mask].max() < 1e-5


def test_a_pixel_without_neighbours_along_one_axis_has_no_normal():
    rays = pinhole_rays(9, 9)
    depth, _ = cast(rays, plane(*SLANTED))
    valid = torch.zeros_like(depth, dtype=torch.bool)
    valid[0, 4, 2:7] = True
    valid[0, 0:2, 0:2] = True
    _, mask = normals_from_depth(depth, rays, valid)
    assert mask[0, 0:2, 0:2].all()
    assert mask.sum() == 4


def test_a_batch_is_the_sum_of_its_images():
    rays = torch.stack([pinhole_rays(24, 32), tilt_shift_rays(24, 32)])
    scenes = [box_room(r) for r in rays]
    depth = torch.stack([scene[0] for scene in scenes])
    valid = torch.rand(depth.shape, generator=torch.Generator().manual_seed(0)) < 0.9
    for method in METHODS:
        normals, mask = method(depth, rays, valid)
        assert normals.shape == (2, 3, 24, 32) and mask.shape == (2, 1, 24, 32)
        for i in range(2):
            one_normals, one_mask = method(depth[i], rays[i], valid[i])
            assert torch.equal(normals[i], one_normals) and torch.equal(mask[i], one_mask)
    shared_rays, _ = normals_from_depth(depth[:1].expand(2, -1, -1, -1), rays[0], valid)
    torch.testing.assert_close(shared_rays[0], normals_from_depth(depth[0], rays[0], valid[0])[0])


def test_a_mirrored_scene_has_mirrored_normals():
    rays = pinhole_rays(48, 64)
    depth, _ = box_room(rays)
    normals, _ = normals_from_depth(depth, rays, everywhere(depth))
    mirrored, _ = normals_from_depth(depth.flip(-1), rays, everywhere(depth))
    same = angle_deg(mirrored, flip_horizontal(normals)) < 0.1
    assert same.double().mean() > 0.99
    left_wall = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    assert flip_horizontal(left_wall).flatten().tolist() == [-1, 0, 0]


def test_a_slanted_plane_has_the_known_normal_in_every_frame():
    """Each frame's normal is found from points in its own axes, with no use of the conversion."""
    rays = pinhole_rays(8, 10)
    depth, normals = cast(rays, plane(*SLANTED))
    x, y, z = unproject(depth, rays)
    axes = {"opengl": (x, y, z), "opencv": (x, -y, -z), "dsine": (-x, y, z)}
    for frame, points in axes.items():
        points = torch.stack(points)
        centroid = points.flatten(1).mean(1)
        normal = torch.linalg.svd(points.flatten(1) - centroid[:, None])[0][:, 2]
        normal = -normal * torch.sign(normal @ centroid)  # facing the camera, which is the origin of all three frames
        converted = convert_frame(normals, "opengl", frame)
        torch.testing.assert_close(converted, normal[:, None, None].expand_as(converted))
        torch.testing.assert_close(convert_frame(converted, frame, "opengl"), normals)


def test_outward_normals_with_opencv_axes_are_numerically_those_of_dsine():
    normals = torch.tensor([0.3, -0.5, 0.8]).view(3, 1, 1)
    outward = -convert_frame(normals, "opengl", "opencv")
    assert torch.equal(outward, convert_frame(normals, "opengl", "dsine"))


def test_the_three_frames_agree_on_the_numbers_of_the_docstring():
    expected = {
        (0, 0, 1): {"opengl": (0, 0, 1), "opencv": (0, 0, -1), "dsine": (0, 0, 1)},
        (0, 1, 0): {"opengl": (0, 1, 0), "opencv": (0, -1, 0), "dsine": (0, 1, 0)},
        (1, 0, 0): {"opengl": (1, 0, 0), "opencv": (1, 0, 0), "dsine": (-1, 0, 0)},
    }
    for ours, frames in expected.items():
        normals = torch.tensor(ours, dtype=torch.float32).view(1, 3, 1, 1)
        for frame, numbers in frames.items():
            assert tuple(convert_frame(normals, "opengl", frame).flatten().tolist()) == numbers
    assert convert_frame(torch.ones(3, 1, 1), "opencv", "dsine").flatten().tolist() == [-1, -1, -1]


def test_an_unknown_frame_is_named_in_the_error():
    with pytest.raises(InputError, match="'marigold'; choose one of opengl, opencv, dsine"):
        convert_frame(torch.ones(3, 1, 1), "opengl", "marigold")


def test_normals_face_the_camera_at_the_side_of_the_image_too():
    """A wall on the left, seen at the right end of its normal's z: its sign of z alone would not tell."""
    rays = pinhole_rays(24, 32)
    _, normals = cast(rays, plane([1, 0, -0.2], -1.0))
    left = normals[..., :4]
    assert (left[2] < 0).all()
    assert torch.equal(face_camera(-left, rays[..., :4]), left)
    assert torch.equal(face_camera(left, rays[..., :4]), left)


def test_renormalised_normals_have_length_one_and_unknown_ones_length_zero():
    normals = torch.tensor([[0.0, 3, 4], [0, 0, 0], [torch.nan, 1, 1]]).T.reshape(3, 1, 3).requires_grad_()
    mask = torch.tensor([[[True, True, False]]])
    result = renormalize(normals, mask)
    torch.testing.assert_close(result[:, 0].T, torch.tensor([[0, 0.6, 0.8], [0, 0, 0], [0, 0, 0]]))
    result.sum().backward()
    assert normals.grad.isfinite().all()
    tiny = renormalize(torch.full((3, 1, 1), 1e-4, dtype=torch.float16), torch.ones(1, 1, 1, dtype=torch.bool))
    torch.testing.assert_close(tiny, torch.full((3, 1, 1), 3**-0.5, dtype=torch.float16))


def test_camera_and_normals_agree_that_a_road_below_the_camera_points_up():
    """Virtual KITTI: depth in the lower half of the image grows toward the horizon."""
    intrinsics = torch.tensor([[72.5, 0, 62.05], [0, 72.5, 18.7], [0, 0, 1]])
    rays = pixel_rays(camera_from_intrinsics(intrinsics), 37, 124, pixel_center=0.0)
    rows = torch.arange(37.0)[None, :, None].expand(1, 37, 124)
    depth = 1.6 * 72.5 / (rows - 18.7)
    normals, mask = normals_from_depth(depth, rays, rows > 20)
    assert mask[rows > 20].all()
    up = torch.tensor([0.0, 1, 0]).view(3, 1, 1).expand_as(normals)
    assert angle_deg(normals, up)[mask].max() < 0.01


@pytest.mark.parametrize("size", [(40, 60), (7, 300), (300, 7), (1, 9), (9, 1)])
@pytest.mark.parametrize("error_m", [0.0, 0.005])
def test_bands_of_rows_change_no_bit(monkeypatch, size, error_m):
    generator = torch.Generator().manual_seed(0)
    depth = (
        5 + torch.rand(1, *size, generator=generator).mul(4).floor() + torch.rand(1, *size, generator=generator) / 50
    )
    valid = torch.rand(1, *size, generator=generator) > 0.05
    rays = pixel_rays(torch.tensor([[0.01, 0, -0.3], [0, -0.01, 0.2], [0, 0, -1]]), *size, 0.0)
    found = []
    for pixels in (1 << 30, 1, 97, 1000):
        monkeypatch.setattr(padded_images, "_BAND_PIXELS", pixels)
        found.append(normals_from_depth(depth, rays, valid, 0.0, error_m))
    for normals, mask in found[1:]:
        assert torch.equal(normals, found[0][0]) and torch.equal(mask, found[0][1])


def test_normals_depend_on_nothing_farther_away_than_seven_pixels():
    generator = torch.Generator().manual_seed(0)
    rays = pinhole_rays(40, 60)
    depth, _ = box_room(rays)
    depth = depth * (1 + torch.rand(depth.shape, generator=generator, dtype=depth.dtype) / 2000)
    whole, _ = normals_from_depth(depth, rays, everywhere(depth))
    for reach, is_enough in ((7, True), (6, False)):
        around = (..., slice(12 - reach, 28 + reach), slice(15 - reach, 45 + reach))
        part, _ = normals_from_depth(depth[around], rays[around], everywhere(depth[around]))
        inside = part[:, reach:-reach, reach:-reach]
        assert torch.equal(inside, whole[:, 12:28, 15:45]) == is_enough
