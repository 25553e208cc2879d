import cv2
import numpy as np
import pytest

from datamodules.sources.folder import FolderDataset
from datamodules.sources.folder_cameras import FolderCameras
from datamodules.sources.folder_options import Files, Meaning, Size
from geometry.errors import InputError
from tests.datamodules.sources.test_array_files import pfm_bytes, write_exr
from tests.helpers.planes import NORMAL, plane_depth, rays_of

SIZE = (40, 60)
INTRINSICS = (52.0, 50.0, 31.0, 18.5)
CAMERA = np.diag([1, -1, -1]) @ np.linalg.inv(np.array([[52.0, 0, 31], [0, 50, 18.5], [0, 0, 1]]))
RAYS = rays_of(CAMERA, *SIZE, 0.0)
DEPTH = plane_depth(RAYS)
OWN, NONE, KEPT = FolderCameras(INTRINSICS), FolderCameras(), Size()
SIGNS = {"opengl": (1, 1, 1), "opencv": (1, -1, -1), "dsine": (-1, 1, 1)}


def write_depth(path, array, name=None):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, **{name or "depth": array})
    elif path.suffix == ".pfm":
        path.write_bytes(pfm_bytes(array.astype(np.float32)))
    elif path.suffix == ".exr":
        write_exr(path, Z=array.astype(np.float32))
    else:
        cv2.imwrite(str(path), array)


def make(
    tmp_path,
    depth=DEPTH,
    suffix=".npy",
    normals="none",
    normals_suffix=".npy",
    cameras=NONE,
    fit=KEPT,
    **meaning,
):
    """Write one frame, return the data set and the frame."""
    for kind in ("image", "depth", "normals"):
        (tmp_path / kind).mkdir(exist_ok=True)
    image = np.zeros((*depth.shape[:2], 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, depth.shape[1])
    cv2.imwrite(str(tmp_path / "image" / "a.png"), image[..., ::-1])
    write_depth(tmp_path / "depth" / f"a{suffix}", depth)
    if not isinstance(normals, str):
        write_depth(tmp_path / "normals" / f"a{normals_suffix}", normals, "normals")
        normals = str(tmp_path / "normals")
    files = Files(tmp_path / "image", tmp_path / "depth", normals)
    raw = FolderDataset(files, meaning=Meaning(**meaning), cameras=cameras, fit=fit)
    return raw, raw.list_frames().splits["train"][0]


def load(*arguments, **options):
    raw, frame = make(*arguments, **options)
    return raw.load(frame)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".exr", ".pfm"])
def test_metres_in_every_format_stay_metres(tmp_path, suffix):
    np.testing.assert_allclose(load(tmp_path, DEPTH, suffix).targets["depth"], DEPTH, rtol=1e-6)


@pytest.mark.parametrize(("scale", "suffix"), [(1000, ".png"), (256, ".png"), (1000, ".npy")])
def test_whole_numbers_become_metres_by_their_scale(tmp_path, scale, suffix):
    stored = np.rint(DEPTH * scale).astype(np.uint16)
    np.testing.assert_allclose(
        load(tmp_path, stored, suffix, depth_scale=scale).targets["depth"], DEPTH, atol=0.501 / scale
    )


def test_far_depth_does_not_wrap(tmp_path):
    stored = np.full(SIZE, 65535, np.uint16)
    assert (load(tmp_path, stored, ".png", depth_scale=100).targets["depth"] == np.float32(655.35)).all()


def test_whole_numbers_without_a_scale_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.png holds whole numbers.*--depth_scale"):
        load(tmp_path, np.ones(SIZE, np.uint16), ".png")


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf, -np.inf, 90, 1e-4])
def test_what_is_no_depth_is_unknown(tmp_path, value):
    depth = DEPTH.copy()
    depth[3:5, 7:9] = value
    sample = load(tmp_path, depth, far=80.0, cameras=OWN, normals="from-depth")
    unknown = sample.targets["depth"] == 0
    assert unknown[3:5, 7:9].all() and unknown.sum() == 4
    assert not sample.targets["normals"][:, 3:5, 7:9].any() and np.isfinite(sample.targets["normals"]).all()


def test_a_value_can_be_declared_unknown(tmp_path):
    stored = np.full(SIZE, 1000, np.uint16)
    stored[0, :5] = 65535
    sample = load(tmp_path, stored, ".png", depth_scale=1000, depth_unknown=(65535,))
    assert (sample.targets["depth"] == 0).sum() == 5


def test_ray_distance_becomes_planar_depth(tmp_path):
    distance = DEPTH * np.linalg.norm(RAYS, axis=0)
    assert abs(distance - DEPTH).max() > 0.3
    sample = load(tmp_path, distance, depth_kind="ray-distance", cameras=OWN)
    np.testing.assert_allclose(sample.targets["depth"], DEPTH, rtol=1e-5)


def test_normals_from_depth_fit_the_plane(tmp_path):
    sample = load(tmp_path, cameras=OWN, normals="from-depth")
    cosine = np.einsum("i,ihw->hw", NORMAL, sample.targets["normals"])[1:-1, 1:-1]
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 0.1


def test_normals_of_a_noisy_sensor_improve_with_its_error_declared(tmp_path):
    stepped = np.rint(np.log(DEPTH) / 0.01) * 0.01

    def median_error(relative_error):
        sample = load(tmp_path, np.exp(stepped), cameras=OWN, normals="from-depth", depth_error=relative_error)
        normals = sample.targets["normals"]
        return np.degrees(np.arccos(np.median(np.einsum("i,ihw->hw", NORMAL, normals)).clip(-1, 1)))

    assert median_error(0.005) < 0.7 * median_error(0.0)


@pytest.mark.parametrize("frame", ["opengl", "opencv", "dsine"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", "8 bits"])
def test_normals_in_every_frame_and_format_become_ours(tmp_path, frame, suffix):
    stored = np.broadcast_to(NORMAL * SIGNS[frame], (*SIZE, 3))
    tolerance = 1e-4
    if suffix in (".png", "8 bits"):
        maximum, dtype = (65535, np.uint16) if suffix == ".png" else (255, np.uint8)
        stored = np.rint((stored + 1) / 2 * maximum).astype(dtype)[..., ::-1]
        tolerance = 0.005
    suffix = ".png" if suffix == "8 bits" else suffix
    sample = load(tmp_path, normals=stored, normals_suffix=suffix, normals_frame=frame, cameras=OWN)
    expected = np.broadcast_to(NORMAL[:, None, None], (3, *SIZE))
    np.testing.assert_allclose(sample.targets["normals"], expected, atol=tolerance)
    assert sample.info["normals"] == "native"


@pytest.mark.parametrize("cameras", [OWN, NONE], ids=["camera", "no camera"])
@pytest.mark.parametrize(("actual", "claimed"), [("opencv", "opengl"), ("opengl", "opencv"), ("dsine", "opencv")])
def test_normals_in_a_misnamed_frame_are_refused(tmp_path, actual, claimed, cameras):
    stored = np.broadcast_to(NORMAL * SIGNS[actual], (*SIZE, 3))
    with pytest.raises(InputError, match=rf"a\.npy: 100 % .*--normals_frame {claimed}"):
        load(tmp_path, normals=stored, normals_frame=claimed, cameras=cameras)


def test_unknown_normals_stay_unknown(tmp_path):
    stored = np.full((*SIZE, 3), (128, 128, 255), np.uint8)
    stored[0], stored[1] = 0, 127
    normals = load(tmp_path, normals=stored[..., ::-1], normals_suffix=".png").targets["normals"]
    assert not normals[:, :2].any() and (normals[2, 2:] > 0.999).all()


def test_a_file_without_unit_vectors_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.npy holds no unit vector"):
        load(tmp_path, normals=np.full((*SIZE, 3), 100.0))


@pytest.mark.parametrize(
    ("fit", "tolerance"),
    [(Size(crop=(24, 36)), 1e-5), (Size(crop=(24, 36), crop_at="bottom"), 1e-5), (Size((20, 30)), 0.03)],
)
def test_the_stored_camera_fits_the_stored_depth(tmp_path, fit, tolerance):
    sample, size = load(tmp_path, fit=fit, cameras=OWN, normals="from-depth"), fit.size or fit.crop
    assert sample.image.shape == (*size, 3)
    expected = plane_depth(rays_of(sample.camera_from_pixel, *size, sample.pixel_center))
    np.testing.assert_allclose(sample.targets["depth"], expected, rtol=tolerance)
    assert abs(np.einsum("i,ihw->hw", NORMAL, sample.targets["normals"])[1:-1, 1:-1] - 1).max() < 1e-4


def test_a_crop_at_the_bottom_keeps_the_last_rows(tmp_path):
    np.testing.assert_array_equal(
        load(tmp_path, fit=Size(crop=(10, 60), crop_at="bottom")).targets["depth"], DEPTH[30:].astype(np.float32)
    )


def test_a_frame_of_another_size_needs_a_size_for_all(tmp_path):
    raw, frame = make(tmp_path)
    cv2.imwrite(str(tmp_path / "image" / "0.png"), np.zeros((30, 60, 3), np.uint8))
    raw = FolderDataset(raw.files)
    with pytest.raises(InputError, match=r"a\.png is 40x60 pixels, the first image 30x60.*--size"):
        raw.load(frame)
    (tmp_path / "image" / "0.png").unlink()
    with pytest.raises(InputError, match=r"a\.png is 40x60 pixels, smaller than the crop of 41x60"):
        load(tmp_path, fit=Size(crop=(41, 60)))


def test_depth_of_another_size_than_its_image_is_named(tmp_path):
    raw, frame = make(tmp_path)
    np.save(frame.targets["depth"], DEPTH[:, :30])
    with pytest.raises(InputError, match=r"a\.npy is 40x30 pixels, its image 40x60"):
        raw.load(frame)


def test_without_cameras_depth_is_prepared_and_it_is_said(tmp_path):
    raw, frame = make(tmp_path)
    assert raw.load(frame).camera_from_pixel is None and raw.modalities == ("depth",)
    assert any("normals cannot be computed" in notice for notice in raw.list_frames().notices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normals": "from-depth"}, "--normals from-depth needs cameras"),
        ({"depth_kind": "ray-distance"}, "--depth_kind ray-distance needs cameras"),
        ({"depth_scale": 0}, "--depth_scale"),
        ({"depth_scale": float("nan")}, "--depth_scale"),
        ({"near": 5.0, "far": 4.0}, "--near and --far"),
        ({"far": 1e6}, "65504"),
        ({"depth_error": -1}, "--depth_error"),
        ({"cameras": FolderCameras(INTRINSICS, fov_deg=60)}, "one of --intrinsics"),
    ],
)
def test_options_that_make_no_sense_are_named_before_anything_is_read(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path, **options)


@pytest.mark.parametrize("which", ["image", "depth"])
def test_a_broken_file_is_named(tmp_path, which):
    raw, frame = make(tmp_path, suffix=".npy")
    path = frame.image if which == "image" else frame.targets[which]
    path.write_bytes(b"rubbish")
    with pytest.raises(InputError, match=str(path)):
        raw.load(frame)
