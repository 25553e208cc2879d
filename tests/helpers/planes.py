"""Small data with known geometry: a slanted plane, as raw frames of either data set and as prepared shards."""

from pathlib import Path

import cv2
import h5py
import numpy as np

from datamodules.shards.codecs import encode_array, encode_image, encode_json
from datamodules.shards.files import EncodedSample, write_shard
from datamodules.shards.manifest import Dataset, DatasetManifest, ShardInfo, read_dataset

# Faces the camera, leans to the right and upward: no sign error in any axis goes unnoticed.
NORMAL = np.array([0.5, 0.3, 0.8124038]) / np.linalg.norm([0.5, 0.3, 0.8124038])
DISTANCE_M = 3.0


def rays_of(camera: np.ndarray, height: int, width: int, pixel_center: float) -> np.ndarray:
    """Viewing rays (3,H,W) with z = -1."""
    v, u = np.mgrid[:height, :width] + pixel_center
    directions = np.einsum("ij,jhw->ihw", camera, np.stack([u, v, np.ones_like(u)]))
    return directions / -directions[2]


def plane_depth(rays: np.ndarray, normal: np.ndarray = NORMAL, distance_m: float = DISTANCE_M) -> np.ndarray:
    """Planar depth (H,W) of the plane normal . x = -distance."""
    return -distance_m / np.einsum("i,ihw->hw", normal, rays)


def hypersim_camera(height: int, width: int, m_cam_from_uv: np.ndarray) -> np.ndarray:
    return m_cam_from_uv @ np.array([[2 / width, 0, -1], [0, -2 / height, 1], [0, 0, 1]])


def nominal_m_cam_from_uv(height: int, width: int) -> np.ndarray:
    half = 1024 / 886.81 / 2
    return np.diag([half, half * height / width, -1.0])


def write_hypersim_frame(
    raw: Path,
    scene: str = "ai_001_001",
    camera: str = "cam_00",
    number: int = 0,
    size: tuple[int, int] = (48, 64),
    m_cam_from_uv: np.ndarray | None = None,
    normals: bool = True,
    **replace: np.ndarray,
) -> np.ndarray:
    """Write a plane as a Hypersim frame; keyword arguments replace whole arrays. Return its planar depth (H,W)."""
    m = nominal_m_cam_from_uv(*size) if m_cam_from_uv is None else m_cam_from_uv
    rays = rays_of(hypersim_camera(*size, m), *size, 0.5)
    depth = plane_depth(rays)
    arrays = {
        "color": np.random.default_rng(number).uniform(0, 1, (*size, 3)).astype(np.float16),
        "depth_meters": (depth * np.linalg.norm(rays, axis=0)).astype(np.float16),
        "render_entity_id": np.ones(size, np.int32),
    }
    if normals:
        arrays["normal_cam"] = np.broadcast_to(NORMAL, (*size, 3)).astype(np.float16)
    for name, array in {**arrays, **replace}.items():
        kind = "final" if name == "color" else "geometry"
        path = raw / scene / "images" / f"scene_{camera}_{kind}_hdf5" / f"frame.{number:04d}.{name}.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["dataset"] = array
    return depth


def write_virtual_kitti_frame(
    raw: Path,
    scene: str = "Scene02",
    condition: str = "clone",
    camera: int = 0,
    number: int = 0,
    size: tuple[int, int] = (40, 100),
    intrinsics: tuple[float, float, float, float] | None = (60.0, 60.0, 49.5, 19.5),
    sky_rows: int = 0,
    prefix: str = "vkitti_2.0.3_",
) -> np.ndarray:
    """Write a plane as a Virtual KITTI 2 frame. Return its planar depth (H,W)."""
    fx, fy, cx, cy = intrinsics or (725.0087 * size[1] / 1242,) * 2 + ((size[1] - 1) / 2, (size[0] - 1) / 2)
    matrix = np.diag([1, -1, -1]) @ np.linalg.inv(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
    depth = plane_depth(rays_of(matrix, *size, 0.0))
    stored = np.rint(depth * 100).astype(np.uint16)
    stored[:sky_rows] = 65535
    sequence = raw / f"{prefix}rgb" / scene / condition
    for content, extension, array in (("rgb", "jpg", np.full((*size, 3), 100, np.uint8)), ("depth", "png", stored)):
        folder = raw / f"{prefix}{content}" / scene / condition / "frames" / content / f"Camera_{camera}"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{content}_{number:05d}.{extension}"), array)
    if intrinsics:
        path = raw / f"{prefix}textgt" / sequence.parent.name / condition / "intrinsic.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            if file.tell() == 0:
                file.write("frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]\n")
            file.write(f"{number} {camera} {fx} {fy} {cx} {cy} \n")
    return depth


def encode_plane(key: str, size: tuple[int, int] = (12, 16), normals: bool = True) -> EncodedSample:
    """A slanted plane seen by a simple pinhole; the image is brighter on the right."""
    camera = np.array([[1 / 16, 0, -0.5], [0, -1 / 16, 0.375], [0, 0, -1]])
    depth = plane_depth(rays_of(camera, *size, 0.5))
    ramp = np.linspace(0, 255, size[1])[None, :, None]
    entries = {
        "image.png": encode_image(np.broadcast_to(ramp, (*size, 3)).astype(np.uint8), "png"),
        "depth.blosc": encode_array(depth.astype(np.float16)),
    }
    if normals:
        field = np.broadcast_to(NORMAL[:, None, None], (3, *size)).astype(np.float16)
        entries["normals.blosc"] = encode_array(field)
    entries["json"] = encode_json({"camera_from_pixel": camera.tolist(), "pixel_center": 0.5})
    return EncodedSample(key, "", entries)


def make_dataset(
    folder: Path,
    name: str = "planes",
    shards: dict[str, list[int]] | None = None,
    size: tuple[int, int] = (12, 16),
    normals: bool = True,
) -> Dataset:
    """Write a prepared data set with the given number of samples in every shard of every split."""
    splits: dict[str, list[ShardInfo]] = {}
    for split, counts in (shards or {"train": [3, 4], "val": [3]}).items():
        splits[split], number = [], 0
        for index, count in enumerate(counts):
            samples = [encode_plane(f"{split}-{number + i:04d}", size, normals) for i in range(count)]
            splits[split].append(write_shard(folder, f"{split}/{name}-{split}-{index:06d}.tar", samples))
            number += count
    entries = ("image", "depth", "normals") if normals else ("image", "depth")
    DatasetManifest(name, size, entries, splits, {"depth": (1e-5, 65.0)}).write(folder)
    return read_dataset(folder)


def write_camera_table(path, scene, matrix):
    names = [f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3)]
    path.write_text(f"scene_name,{','.join(names)}\n{scene},{','.join(map(str, np.ravel(matrix)))}\n")
    return path
