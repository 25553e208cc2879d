from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datamodules.sources.hypersim import Hypersim, tone_map
from datamodules.sources.hypersim_frames import HypersimFrame
from geometry.camera import pixel_rays
from geometry.errors import InputError
from geometry.normals import normals_from_depth
from tests.helpers.planes import (
    NORMAL,
    nominal_m_cam_from_uv,
    plane_depth,
    rays_of,
    write_camera_table,
    write_hypersim_frame,
)

SIZE = (48, 64)
FRAME = HypersimFrame("ai_001_001", "cam_00", 0)
SAMPLES = Path(__file__).parents[3] / "../shared/samples/hypersim"
# As in scene ai_037_002 of the real data set: the lens is shifted and tilted.
TILT_SHIFT = np.array([[0.58, 0, -0.07], [0, 0.435, 0.093], [-0.0, 0.04, -1.0]])


def angle_deg(a, b):
    return np.degrees(np.arccos(np.clip((a * b).sum(axis=0), -1, 1)))


def load(raw, size=SIZE, frame=FRAME, **options):
    return Hypersim(raw, size, **options).load(frame)


def test_ray_distance_becomes_planar_depth(tmp_path):
    depth = write_hypersim_frame(tmp_path)
    np.testing.assert_allclose(load(tmp_path).targets["depth"], depth, rtol=1e-3)


def test_native_normals_keep_their_direction(tmp_path):
    write_hypersim_frame(tmp_path)
    sample = load(tmp_path, normals="native")
    assert angle_deg(sample.targets["normals"], NORMAL[:, None, None]).max() < 0.1
    assert sample.info["normals"] == "native"


def test_normals_that_point_away_are_turned_round(tmp_path):
    inward = np.broadcast_to(NORMAL, (*SIZE, 3)).astype(np.float16).copy()
    inward[::2] *= -1
    write_hypersim_frame(tmp_path, normal_cam=inward)
    assert angle_deg(load(tmp_path).targets["normals"], NORMAL[:, None, None]).max() < 0.1


def test_missing_normals_are_computed_and_agree_with_the_depth(tmp_path):
    write_hypersim_frame(tmp_path, normals=False)
    sample = load(tmp_path)
    assert sample.info["normals"] == "from-depth"
    known = (sample.targets["normals"] != 0).any(axis=0)
    assert known.mean() > 0.8
    assert np.median(angle_deg(sample.targets["normals"], NORMAL[:, None, None])[known]) < 1


def test_native_normals_that_are_missing_are_an_error(tmp_path):
    write_hypersim_frame(tmp_path, normals=False)
    with pytest.raises(InputError, match=r"normal_cam\.hdf5 is missing"):
        load(tmp_path, normals="native")


def test_unknown_normals_are_zero_and_not_grey(tmp_path):
    normals = np.broadcast_to(NORMAL, (*SIZE, 3)).astype(np.float16).copy()
    normals[0, :2] = [[0, 0, 0], [np.nan, 0, 1]]
    entity = np.ones(SIZE, np.int32)
    entity[0, 2] = -1
    write_hypersim_frame(tmp_path, normal_cam=normals, render_entity_id=entity)
    known = (load(tmp_path).targets["normals"] != 0).any(axis=0)
    assert not known[0, :3].any() and known[0, 3:].all() and known[1:].all()


def test_holes_and_what_lies_beyond_the_far_plane_are_invalid(tmp_path):
    rays = rays_of(nominal_hypersim_camera(), *SIZE, 0.5)
    length = np.linalg.norm(rays, axis=0)
    distance = np.full(SIZE, 5.0) * length
    distance[0, :8] = [
        np.nan,
        np.inf,
        0,
        -1,
        65.6 * length[0, 4],
        70 * length[0, 5],
        400 * length[0, 6],
        64 * length[0, 7],
    ]
    entity = np.ones(SIZE, np.int32)
    entity[1, 0] = -1
    write_hypersim_frame(tmp_path, depth_meters=distance.astype(np.float16), render_entity_id=entity)
    depth = load(tmp_path).targets["depth"]
    assert depth[0, :7].tolist() == [0] * 7 and depth[1, 0] == 0
    assert depth[0, 7] == pytest.approx(64, rel=1e-3)
    assert np.isfinite(depth).all() and (depth[2:] > 4.9).all()


def nominal_hypersim_camera():
    height, width = SIZE
    uv_from_pixel = np.array([[2 / width, 0, -1], [0, -2 / height, 1], [0, 0, 1]])
    return nominal_m_cam_from_uv(*SIZE) @ uv_from_pixel


def test_a_tilted_lens_is_seen_through_its_own_camera(tmp_path):
    depth = write_hypersim_frame(tmp_path, m_cam_from_uv=TILT_SHIFT)
    table = write_camera_table(tmp_path / "cameras.csv", "ai_001_001", TILT_SHIFT)
    sample = load(tmp_path, camera_csv=table, normals="from-depth")
    np.testing.assert_allclose(sample.targets["depth"], depth, rtol=1e-3)
    assert sample.info["camera"] == "scene"
    assert np.median(angle_deg(sample.targets["normals"], NORMAL[:, None, None])) < 1
    nominal = load(tmp_path, normals="from-depth")
    assert nominal.info["camera"] == "nominal"
    assert np.abs(nominal.targets["depth"] / depth - 1).max() > 0.02
    assert np.median(angle_deg(nominal.targets["normals"], NORMAL[:, None, None])) > 2


def test_the_stored_camera_fits_the_resized_depth(tmp_path):
    write_hypersim_frame(tmp_path, m_cam_from_uv=TILT_SHIFT)
    table = write_camera_table(tmp_path / "metadata_camera_parameters.csv", "ai_001_001", TILT_SHIFT)
    assert table.parent == tmp_path  # found inside the raw folder without being named
    sample = load(tmp_path, size=(24, 32))
    expected = plane_depth(rays_of(sample.camera_from_pixel, 24, 32, sample.pixel_center))
    # Nearest sampling takes a pixel up to half a pixel away from the new centre.
    np.testing.assert_allclose(sample.targets["depth"], expected, rtol=0.02)
    assert abs(np.mean(sample.targets["depth"] / expected) - 1) < 0.01
    assert sample.image.shape == (24, 32, 3) and sample.targets["normals"].shape == (3, 24, 32)


def test_the_cameras_used_are_counted(tmp_path):
    write_hypersim_frame(tmp_path, "ai_001_001")
    write_hypersim_frame(tmp_path, "ai_002_001")
    table = write_camera_table(tmp_path / "cameras.csv", "ai_001_001", TILT_SHIFT)
    said = " ".join(Hypersim(tmp_path, camera_csv=table).list_frames().notices)
    assert "1 of 2 scenes have theirs" in said
    assert "1 of 2 scenes use the nominal 60 degree pinhole (ai_002_001)" in said


def test_exposure_follows_hypersims_own_tone_mapping():
    rgb = np.linspace(0, 4, 300, dtype=np.float32).reshape(10, 30, 1).repeat(3, 2)
    brightness = rgb[..., 0]
    image = tone_map(rgb, np.ones((10, 30), bool))
    at_percentile = np.percentile(brightness, 90)
    assert np.interp(at_percentile, brightness.ravel(), image[..., 0].ravel()) == pytest.approx(0.8, abs=1e-3)
    assert image.max() <= 1 and image[0, 0, 0] == 0
    np.testing.assert_allclose(image[5, 0], (0.8**2.2 / at_percentile * rgb[5, 0]) ** (1 / 2.2), rtol=1e-4)


def test_bright_sky_without_geometry_does_not_darken_the_room():
    rgb = np.full((10, 10, 3), 0.5, np.float32)
    rgb[:5] = 1000
    mask = np.ones((10, 10), bool)
    mask[:5] = False
    assert tone_map(rgb, mask)[9, 9] == pytest.approx([0.8] * 3, abs=1e-3)


def test_dark_empty_and_overflowed_frames_make_no_nan():
    dark, mask = np.full((4, 4, 3), 1e-6, np.float32), np.ones((4, 4), bool)
    assert tone_map(dark, mask).max() == 0
    np.testing.assert_allclose(tone_map(np.full((4, 4, 3), 0.5, np.float32), ~mask), 0.5 ** (1 / 2.2), rtol=1e-5)
    rgb = np.ones((4, 4, 3), np.float32)
    rgb[0, 0], rgb[0, 1] = np.inf, np.nan
    image = tone_map(rgb, mask)
    assert np.isfinite(image).all() and image[0, 0].min() == 1 and image[0, 1].max() == 0


@pytest.mark.parametrize("content", ["depth_meters", "render_entity_id"])
def test_a_frame_without_geometry_is_named(tmp_path, content):
    write_hypersim_frame(tmp_path)
    FRAME.path(tmp_path, content).unlink()
    with pytest.raises(InputError, match=rf"frame\.0000\.{content}\.hdf5 is missing"):
        load(tmp_path)


def test_a_truncated_file_and_a_wrong_size_are_named(tmp_path):
    write_hypersim_frame(tmp_path, depth_meters=np.ones((10, 10), np.float16))
    with pytest.raises(InputError, match=r"depth_meters\.hdf5 is 10x10 pixels, the frame's colour 48x64"):
        load(tmp_path)
    path = FRAME.path(tmp_path, "color")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"color\.hdf5 cannot be read"):
        load(tmp_path)


@pytest.mark.skipif(not SAMPLES.exists(), reason="the real Hypersim samples are not here")
def test_real_normals_agree_with_those_computed_from_the_prepared_depth():
    sample = Hypersim(SAMPLES / "raw", camera_csv=SAMPLES / "meta/metadata_camera_parameters.csv").load(FRAME)
    assert sample.info == {"source": "ai_001_001/cam_00/0000", "camera": "scene", "normals": "native"}
    rays = pixel_rays(torch.from_numpy(sample.camera_from_pixel), 480, 640, sample.pixel_center).float()
    depth = torch.from_numpy(sample.targets["depth"])[None]
    computed, mask = normals_from_depth(depth, rays, depth > 0)
    both = mask[0].numpy() & (sample.targets["normals"] != 0).any(axis=0)
    assert both.mean() > 0.9
    assert np.median(angle_deg(computed.numpy(), sample.targets["normals"])[both]) <= 3.5
    # Taken as planar depth, the raw distance would give more than 10 degrees.
    distance = depth * rays.norm(dim=0, keepdim=True)
    wrong, _ = normals_from_depth(distance, rays, depth > 0)
    assert np.median(angle_deg(wrong.numpy(), sample.targets["normals"])[both]) > 10


@pytest.mark.parametrize("entry", [np.nan, np.inf, 1e300])
def test_a_camera_table_with_what_is_no_camera_is_named(tmp_path, entry):
    write_hypersim_frame(tmp_path)
    matrix = np.array(TILT_SHIFT, float)
    matrix[1, 2] = entry
    table = write_camera_table(tmp_path / "cameras.csv", "ai_001_001", matrix)
    with pytest.raises(InputError, match=r"cameras\.csv: M_cam_from_uv of ai_001_001 is .* no camera"):
        load(tmp_path, camera_csv=table)


def test_a_camera_table_may_have_a_byte_order_mark(tmp_path):
    write_hypersim_frame(tmp_path)
    table = write_camera_table(tmp_path / "cameras.csv", "ai_001_001", TILT_SHIFT)
    expected = load(tmp_path, camera_csv=table).camera_from_pixel
    marked = tmp_path / "marked.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(load(tmp_path, camera_csv=marked).camera_from_pixel, expected)


def test_a_frame_whose_numbers_lie_in_another_file_is_refused_by_name(tmp_path):
    write_hypersim_frame(tmp_path)
    path = FRAME.path(tmp_path, "depth_meters")
    secret = tmp_path / "secret"
    secret.write_bytes(np.full((48, 64), 7, "<f4").tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset", (48, 64), "<f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(InputError, match=r"depth_meters\.hdf5 cannot be read \(its numbers lie in other files"):
        load(tmp_path)


def test_a_raw_file_that_is_a_pipe_or_a_device_is_not_waited_for(tmp_path):
    write_hypersim_frame(tmp_path)
    path = FRAME.path(tmp_path, "depth_meters")
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"depth_meters\.hdf5.*no regular file"):
        load(tmp_path)
