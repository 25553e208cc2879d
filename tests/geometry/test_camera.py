import pytest
import torch
import torch.nn.functional as F

from geometry import (
    InputError,
    camera_from_hypersim,
    camera_from_intrinsics,
    crop_camera,
    depth_from_ray_distance,
    hypersim_nominal_intrinsics,
    pixel_rays,
    ray_distance_from_depth,
    resize_camera,
    unproject,
)
from geometry.camera import flip_camera, recenter_camera

# M_cam_from_uv of scene ai_001_001 (the usual pinhole) and of ai_037_002 (tilt-shift).
PINHOLE_UV = torch.diag(torch.tensor([0.5773502886169104, 0.4330127164626828, -1.0], dtype=torch.float64))
TILT_SHIFT_UV = torch.tensor(
    [
        [0.579607251426182, 0.0, -0.06955286861651404],
        [0.0, 0.4346865334657201, 0.09273312506660672],
        [0.0, 0.004054126980668954, -1.003909173803896],
    ],
    dtype=torch.float64,
)
VIRTUAL_KITTI = torch.tensor([[725.0087, 0, 620.5], [0, 725.0087, 187], [0, 0, 1]], dtype=torch.float64)


def camera_of(kind: str, height: int, width: int) -> torch.Tensor:
    if kind == "pinhole":
        return camera_from_intrinsics(hypersim_nominal_intrinsics(height, width))
    return camera_from_hypersim(TILT_SHIFT_UV, height, width)


def test_pinhole_pixels_look_where_the_docstring_says():
    intrinsics = torch.tensor([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    camera = camera_from_intrinsics(intrinsics)
    torch.testing.assert_close(camera @ torch.tensor([150.0, 40, 1]), torch.tensor([1.0, 0, -1]))
    torch.testing.assert_close(camera @ torch.tensor([50.0, 140, 1]), torch.tensor([0.0, -1, -1]))


def test_pinhole_ray_passes_through_the_point_that_opencv_projects_to_its_pixel():
    point_opencv = torch.tensor([1.5, -0.7, 4.0], dtype=torch.float64)
    u, v, scale = VIRTUAL_KITTI @ point_opencv
    ray = camera_from_intrinsics(VIRTUAL_KITTI) @ torch.tensor([u / scale, v / scale, 1.0], dtype=torch.float64)
    torch.testing.assert_close(4.0 * ray, torch.tensor([1.5, 0.7, -4.0], dtype=torch.float64))


def test_first_pixel_of_virtual_kitti_lies_at_coordinate_zero():
    rays = pixel_rays(camera_from_intrinsics(VIRTUAL_KITTI), 375, 1242, pixel_center=0.0)
    expected = torch.tensor([-620.5 / 725.0087, 187 / 725.0087, -1], dtype=torch.float64)
    torch.testing.assert_close(rays[:, 0, 0], expected)


def test_nominal_hypersim_camera_matches_the_usual_entry_of_the_camera_table():
    nominal = pixel_rays(camera_of("pinhole", 768, 1024), 768, 1024)
    torch.testing.assert_close(
        nominal[:, 0, 0], torch.tensor([-0.5768, 0.4324, -1], dtype=torch.float64), atol=1e-4, rtol=0
    )
    table = pixel_rays(camera_from_hypersim(PINHOLE_UV, 768, 1024), 768, 1024)
    torch.testing.assert_close(nominal, table, atol=1e-5, rtol=0)


@pytest.mark.parametrize("matrix", [PINHOLE_UV, TILT_SHIFT_UV], ids=["pinhole", "tilt-shift"])
def test_hypersim_rays_equal_the_matrix_times_uv_at_pixel_centres(matrix):
    height, width = 6, 8
    rays = pixel_rays(camera_from_hypersim(matrix, height, width), height, width)
    for row, column in [(0, 0), (0, 7), (5, 0), (3, 2)]:
        u = -1 + 2 * (column + 0.5) / width
        v = 1 - 2 * (row + 0.5) / height
        x, y, z = matrix @ torch.tensor([u, v, 1.0], dtype=torch.float64)
        torch.testing.assert_close(rays[:, row, column], torch.stack([x / -z, y / -z, z / -z]))


def test_up_in_the_image_is_up_in_the_world():
    for kind in ("pinhole", "tilt-shift"):
        rays = pixel_rays(camera_of(kind, 6, 8), 6, 8)
        assert (rays[1].diff(dim=0) < 0).all()
        assert (rays[0].diff(dim=1) > 0).all()
        assert (rays[2] == -1).all()


def test_cameras_come_in_batches():
    intrinsics = torch.stack([hypersim_nominal_intrinsics(6, 8), hypersim_nominal_intrinsics(6, 8) * 2])
    intrinsics[..., 2, 2] = 1
    rays = pixel_rays(camera_from_intrinsics(intrinsics), 6, 8)
    assert rays.shape == (2, 3, 6, 8)
    torch.testing.assert_close(rays[1], pixel_rays(camera_from_intrinsics(intrinsics[1]), 6, 8))
    matrices = torch.stack([PINHOLE_UV, TILT_SHIFT_UV])
    rays = pixel_rays(camera_from_hypersim(matrices, 6, 8), 6, 8)
    torch.testing.assert_close(rays[1], pixel_rays(camera_of("tilt-shift", 6, 8), 6, 8))


def test_a_point_5_m_away_at_the_side_has_depth_4_m():
    ray = torch.tensor([0.75, 0.0, -1.0]).view(3, 1, 1)
    depth = depth_from_ray_distance(torch.full((1, 1, 1), 5.0), ray)
    assert depth.item() == 4.0
    assert ray_distance_from_depth(depth, ray).item() == 5.0
    assert unproject(depth, ray).flatten().tolist() == [3.0, 0.0, -4.0]


@pytest.mark.parametrize("kind", ["pinhole", "tilt-shift"])
def test_a_wall_has_one_depth_and_a_sphere_around_the_camera_one_ray_distance(kind):
    rays = pixel_rays(camera_of(kind, 24, 32), 24, 32)
    wall = torch.full((1, 24, 32), 2.0, dtype=torch.float64)
    points = unproject(wall, rays)
    torch.testing.assert_close(points[2:], -wall)
    torch.testing.assert_close(ray_distance_from_depth(wall, rays)[0], points.norm(dim=0))
    sphere = unproject(depth_from_ray_distance(torch.full_like(wall, 3.0), rays), rays)
    torch.testing.assert_close(sphere.norm(dim=0), torch.full((24, 32), 3.0, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["pinhole", "tilt-shift"])
def test_unprojected_points_lie_on_the_slanted_plane_they_were_cast_from(kind):
    rays = pixel_rays(camera_of(kind, 24, 32), 24, 32)
    normal = torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64)
    depth = -2.0 / torch.einsum("c,chw->hw", normal, rays)[None]
    plane = torch.einsum("c,chw->hw", normal, unproject(depth, rays))
    torch.testing.assert_close(plane, torch.full_like(plane, -2.0))


def test_ray_distance_and_depth_are_inverse_in_batches_and_float32():
    torch.manual_seed(0)
    rays = pixel_rays(camera_of("tilt-shift", 24, 32), 24, 32).float().expand(2, -1, -1, -1)
    distance = torch.rand(2, 1, 24, 32) * 60 + 0.1
    depth = depth_from_ray_distance(distance, rays)
    assert depth.shape == (2, 1, 24, 32)
    assert (depth <= distance).all()
    torch.testing.assert_close(ray_distance_from_depth(depth, rays), distance, rtol=1e-6, atol=0)


def test_unknown_distances_stay_unknown():
    rays = pixel_rays(camera_of("pinhole", 2, 2), 2, 2)
    distance = torch.tensor([[[torch.inf, torch.nan], [1.0, 0.0]]])
    depth = depth_from_ray_distance(distance, rays)
    assert depth[0, 0, 0].isinf() and depth[0, 0, 1].isnan() and depth[0, 1, 1] == 0


def test_float32_cameras_lose_nothing_that_matters():
    exact = pixel_rays(camera_of("pinhole", 768, 1024), 768, 1024)
    camera = camera_from_intrinsics(hypersim_nominal_intrinsics(768, 1024).float())
    rays = pixel_rays(camera, 768, 1024)
    assert rays.dtype == torch.float32
    torch.testing.assert_close(rays.double(), exact, atol=2e-7, rtol=0)


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["pinhole", "tilt-shift"])
def test_cropping_the_camera_is_cropping_the_rays(kind, pixel_center):
    camera = camera_of(kind, 24, 32)
    rays = pixel_rays(camera, 24, 32, pixel_center)
    cropped = pixel_rays(crop_camera(camera, top=5, left=3), 10, 20, pixel_center)
    torch.testing.assert_close(cropped, rays[:, 5:15, 3:23])
    padded = pixel_rays(crop_camera(camera, top=-2, left=-4), 28, 40, pixel_center)
    torch.testing.assert_close(padded[:, 2:26, 4:36], rays)


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
@pytest.mark.parametrize("new_size", [(12, 16), (15, 20), (48, 80)])
def test_resizing_the_camera_is_resizing_the_rays(new_size, pixel_center):
    camera = camera_of("pinhole", 24, 32)
    rays = pixel_rays(camera, 24, 32, pixel_center)
    resized = pixel_rays(resize_camera(camera, (24, 32), new_size, pixel_center), *new_size, pixel_center)
    expected = F.interpolate(rays[None], new_size, mode="bilinear", align_corners=False)[0]
    inner = (slice(None), slice(3, -3), slice(3, -3))
    torch.testing.assert_close(resized[inner], expected[inner])


def test_resizing_and_cropping_a_tilt_shift_camera_keeps_the_corners_of_the_image():
    camera = camera_of("tilt-shift", 768, 1024)
    small = resize_camera(camera, (768, 1024), (480, 640))
    torch.testing.assert_close(small, camera_of("tilt-shift", 480, 640))
    one_way = crop_camera(small, top=50, left=65)
    other_way = resize_camera(crop_camera(camera, top=80, left=104), (768, 1024), (480, 640))
    torch.testing.assert_close(one_way, other_way)


def test_a_camera_with_the_axes_of_opencv_is_refused():
    with pytest.raises(InputError, match="look backward"):
        pixel_rays(torch.linalg.inv(VIRTUAL_KITTI), 375, 1242)


def test_a_focal_length_of_zero_is_refused():
    with pytest.raises(InputError, match="intrinsic matrix cannot be inverted"):
        camera_from_intrinsics(torch.tensor([[0.0, 0, 50], [0, 100, 40], [0, 0, 1]]))


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["pinhole", "tilt-shift"])
def test_flipping_the_camera_is_flipping_the_rays_and_their_x(kind, pixel_center):
    camera = camera_of(kind, 24, 32)
    flipped = pixel_rays(flip_camera(camera, 32, pixel_center), 24, 32, pixel_center)
    expected = pixel_rays(camera, 24, 32, pixel_center).flip(-1) * torch.tensor([-1.0, 1, 1])[:, None, None]
    torch.testing.assert_close(flipped, expected)


def test_a_principal_point_40_pixels_from_the_left_lies_60_from_the_left_in_the_mirror():
    camera = camera_from_intrinsics(torch.tensor([[100.0, 0, 40], [0, 100, 30], [0, 0, 1]]))
    expected = camera_from_intrinsics(torch.tensor([[100.0, 0, 60], [0, 100, 30], [0, 0, 1]]))
    torch.testing.assert_close(flip_camera(camera, 100), expected)
    # With the first centre at 0, the last of 100 lies at 99: 40 from the left are 59 in the mirror.
    expected = camera_from_intrinsics(torch.tensor([[100.0, 0, 59], [0, 100, 30], [0, 0, 1]]))
    torch.testing.assert_close(flip_camera(camera, 100, pixel_center=0.0), expected)


def test_flipping_twice_gives_the_camera_back_in_batches():
    cameras = torch.stack([camera_of("pinhole", 24, 32), camera_of("tilt-shift", 24, 32)])
    torch.testing.assert_close(flip_camera(flip_camera(cameras, 32), 32), cameras)


def test_counting_pixels_from_elsewhere_leaves_every_ray_where_it_was():
    camera = camera_from_intrinsics(VIRTUAL_KITTI)  # its first centre is 0
    centered = recenter_camera(camera, 0.0, 0.5)
    torch.testing.assert_close(pixel_rays(centered, 30, 40, 0.5), pixel_rays(camera, 30, 40, 0.0))
    # The principal point (620.5, 187) is (621, 187.5) where the first pixel's centre is (0.5, 0.5).
    torch.testing.assert_close(
        centered @ torch.tensor([621.0, 187.5, 1.0]).double(), torch.tensor([0, 0, -1.0]).double()
    )
    torch.testing.assert_close(recenter_camera(centered, 0.5, 0.0), camera)
