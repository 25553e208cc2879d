"""Rendered scenes in the raw layouts of Hypersim and Virtual KITTI 2."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

import cv2
import h5py
import numpy as np
import torch
from tqdm import tqdm

from datamodules.preparation.processes import MAX_PROCESSES, process_pool
from datamodules.sources.hypersim import CAMERA_TABLE, Hypersim
from datamodules.sources.hypersim_frames import SPLIT_TABLE, HypersimFrame
from datamodules.sources.virtual_kitti import SCENES, VirtualKitti, VirtualKittiFrame
from geometry.camera import camera_from_hypersim, camera_from_intrinsics, pixel_rays
from geometry.command_line import Option
from geometry.errors import InputError
from geometry.files.limits import MAX_SAMPLE_PIXELS
from geometry.files.paths import check_writable
from synthetic_scenes.primitives import Array
from synthetic_scenes.render import Frame, Pose, render
from synthetic_scenes.rooms import STYLES, add_flash, random_pose, random_room
from synthetic_scenes.streets import WEATHER, random_drive, random_street

_HYPERSIM_CAMERA = "cam_00"
_STEREO_BASELINE_M = 0.532725
_SKY = 65535
_MAX_FRAMES = 1_000_000
_MAX_ANTIALIAS = 64

Row = TypeVar("Row")
Size = Annotated[tuple[int, int], Option(metavar=("H", "W"))]


@dataclass(frozen=True)
class SyntheticHypersim:
    """Render furnished rooms with exact depth and normals as Hypersim's HDF5 frames. Same seed, same files.

    Attributes:
        size: Height and width of the frames.
        frames_per_scene: Images taken of each room before the next one is furnished.
        val_fraction: Share of the rooms held out for validation by the split table; at least one room if there are two.
        tilt_shift_fraction: Share of the rooms taken with a tilted and shifted sensor, as some of Hypersim's are.
        style: All kinds of rooms, or long halls with a flash.
        antialias: Colour rays per pixel in each direction.
        seed: Another seed, other scenes.
    """

    source: ClassVar[str] = Hypersim.source
    size: Size = (768, 1024)
    frames_per_scene: int = 2
    val_fraction: float = 0.1
    tilt_shift_fraction: float = 0.1
    style: Annotated[str, Option(choices=tuple(STYLES))] = "rooms"
    antialias: int = 1
    seed: int = 0

    def write(self, out: Path, frames: int, workers: int = 1, progress: bool = True) -> None:
        """Render ``frames`` images into the folder ``out``, with the split table and the camera table.

        Raises:
            InputError: ``out`` already holds scenes, or an option is out of range.
        """
        _check_shared(self, frames, workers)
        _check_range("frames_per_scene", self.frames_per_scene, 1, _MAX_FRAMES)
        _check_range("val_fraction", self.val_fraction, 0, 1)
        _check_range("tilt_shift_fraction", self.tilt_shift_fraction, 0, 1)
        _take_folder(out, "ai_*_*")
        scenes = -(-frames // self.frames_per_scene)
        rows = [divmod(number, self.frames_per_scene) for number in range(frames)]
        _run(partial(self._write_frame, out), rows, workers, "rooms" if progress else None)
        self._write_tables(out, rows, scenes)

    def frame(self, scene: int, frame: int) -> Frame:
        """Render one image: exact colour, geometry and reflectance."""
        style = STYLES[self.style]
        room, size = random_room(np.random.default_rng([self.seed, 1, scene]), style)
        pose = random_pose(np.random.default_rng([self.seed, 2, scene, frame]), room, size, style)
        if style.flash:
            add_flash(room, pose, style.flash)
        return render(room, pose, self.rays(scene), self.antialias)

    def rays(self, scene: int) -> Array:
        """(3,H,W) float32 rays of the scene's camera, scaled to z = -1."""
        camera = camera_from_hypersim(torch.from_numpy(self.camera_matrix(scene)), *self.size)
        return pixel_rays(camera, *self.size).numpy().astype(np.float32)

    def camera_matrix(self, scene: int) -> Array:
        """Return ``M_cam_from_uv`` (3,3) float64 of the scene: 60 degrees wide, perhaps tilted and shifted."""
        height, width = self.size
        half_width = np.tan(np.deg2rad(60) / 2)
        matrix = np.diag([half_width, half_width * height / width, -1.0])
        rng = np.random.default_rng([self.seed, 3, scene])
        if rng.random() < self.tilt_shift_fraction:
            matrix[1, 2], matrix[2, 1] = rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)
        return matrix

    def _write_frame(self, out: Path, row: tuple[int, int]) -> None:
        scene, number = row
        frame = self.frame(scene, number)
        hit = frame.entity_id >= 0
        ray_distance = frame.depth * np.linalg.norm(self.rays(scene), axis=0)
        stored_normals = np.where(frame.inward[..., None], -frame.normals, frame.normals)
        contents = {
            "color": frame.color.astype(np.float16),
            "diffuse_reflectance": frame.reflectance.astype(np.float16),
            "depth_meters": np.where(hit, ray_distance, np.nan).astype(np.float16),
            "normal_cam": stored_normals.astype(np.float16),
            "render_entity_id": frame.entity_id,
        }
        for content, values in contents.items():
            _write_hdf5(HypersimFrame(_scene_name(scene), _HYPERSIM_CAMERA, number).path(out, content), values)

    def _write_tables(self, out: Path, rows: Sequence[tuple[int, int]], scenes: int) -> None:
        held_out = max(1, round(self.val_fraction * scenes)) if scenes > 1 and self.val_fraction > 0 else 0
        columns = "scene_name camera_name frame_id included_in_public_release exclude_reason split_partition_name"
        with (out / SPLIT_TABLE).open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(columns.split())
            for scene, number in rows:
                split = "val" if scene >= scenes - held_out else "train"
                table.writerow([_scene_name(scene), _HYPERSIM_CAMERA, number, True, "", split])
        with (out / CAMERA_TABLE).open("w", newline="") as file:
            table = csv.writer(file)
            names = [f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3)]
            table.writerow(["scene_name", "settings_output_img_height", "settings_output_img_width", *names])
            for scene in range(scenes):
                table.writerow([_scene_name(scene), *map(float, self.size), *self.camera_matrix(scene).ravel()])


@dataclass(frozen=True)
class SyntheticVirtualKitti:
    """Render streets with exact depth as Virtual KITTI 2's JPEG and PNG frames. Same seed, same files.

    Attributes:
        size: Height and width of the frames.
        conditions: Conditions to render.
        cameras: Cameras: 0 (left), 1 (right) or both.
        antialias: Colour rays per pixel in each direction.
        seed: Another seed, other scenes.
    """

    source: ClassVar[str] = VirtualKitti.source
    size: Size = (375, 1242)
    conditions: Annotated[tuple[str, ...], Option(choices=tuple(WEATHER))] = (
        "clone",
        "morning",
        "fog",
        "rain",
        "sunset",
        "overcast",
    )
    cameras: tuple[Literal[0, 1], ...] = (0,)
    antialias: int = 2
    seed: int = 0

    def write(self, out: Path, frames: int, workers: int = 1, progress: bool = True) -> None:
        """Render ``frames`` images into the folder ``out``, dealt out to the five scenes and the conditions.

        Raises:
            InputError: ``out`` already holds scenes, or an option is out of range.
        """
        _check_shared(self, frames, workers)
        unknown = set(self.conditions) - set(WEATHER)
        if unknown or not self.conditions:
            raise InputError(f"conditions {sorted(unknown)} are unknown; choose from {', '.join(WEATHER)}")
        _take_folder(out, "vkitti_2.0.3_*")
        drives = [(scene, condition) for condition in self.conditions for scene in SCENES]
        rows = []
        for number in range(-(-frames // len(self.cameras))):
            drive, index = number % len(drives), number // len(drives)
            rows += [(*drives[drive], index, camera) for camera in self.cameras]
        _run(partial(self._write_frame, out), rows[:frames], workers, "streets" if progress else None)
        self._write_intrinsics(out, rows[:frames])

    def intrinsics(self) -> Array:
        """(3,3) float64 pinhole matrix for 0-based pixel coordinates, scaled from the data set's own."""
        height, width = self.size
        scale_x, scale_y = width / 1242, height / 375
        # The pixel centre of column 620.5 lies 621 pixel widths from the left edge.
        center_x, center_y = 621 * scale_x - 0.5, 187.5 * scale_y - 0.5
        return np.array([[725.0087 * scale_x, 0, center_x], [0, 725.0087 * scale_x, center_y], [0, 0, 1]])

    def frame(self, scene: str, condition: str, index: int, camera: int = 0) -> Frame:
        """Render one image: exact colour, geometry and reflectance."""
        seeds = [self.seed, int(scene[-2:]), list(WEATHER).index(condition), index]
        rng, weather = np.random.default_rng([4, *seeds]), WEATHER[condition]
        street = random_street(rng, weather)
        pose = random_drive(rng, weather)
        beside = pose.rotation @ np.array([camera * _STEREO_BASELINE_M, 0, 0], np.float32)
        return render(street, Pose(pose.position + beside, pose.rotation), self.rays(), self.antialias)

    def rays(self) -> Array:
        """(3,H,W) float32 rays of the camera, scaled to z = -1."""
        camera = camera_from_intrinsics(torch.from_numpy(self.intrinsics()))
        return pixel_rays(camera, *self.size, pixel_center=0.0).numpy().astype(np.float32)

    def _write_frame(self, out: Path, row: tuple[str, str, int, int]) -> None:
        scene, condition, index, camera = row
        frame = self.frame(scene, condition, index, camera)
        color = np.clip(frame.color, 0, 1) ** (1 / 2.2)
        image = np.round(color[..., ::-1] * 255).astype(np.uint8)
        centimetres = np.minimum(np.round(frame.depth.astype(np.float64) * 100), _SKY).astype(np.uint16)
        place = VirtualKittiFrame(scene, condition, camera, index)
        _write_image(place.path(out / "vkitti_2.0.3_rgb", "rgb"), image, [cv2.IMWRITE_JPEG_QUALITY, 96])
        _write_image(place.path(out / "vkitti_2.0.3_depth", "depth"), centimetres, [])

    def _write_intrinsics(self, out: Path, rows: Sequence[tuple[str, str, int, int]]) -> None:
        focal_x, focal_y = self.intrinsics()[[0, 1], [0, 1]]
        center_x, center_y = self.intrinsics()[:2, 2]
        for scene, condition in dict.fromkeys(row[:2] for row in rows):
            file = out / "vkitti_2.0.3_textgt" / scene / condition / "intrinsic.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
            lines += [
                f"{index} {camera} {focal_x:.4f} {focal_y:.4f} {center_x:.4f} {center_y:.4f}"
                for *drive, index, camera in rows
                if drive == [scene, condition]
            ]
            file.write_text("\n".join(lines) + "\n")


def _scene_name(scene: int) -> str:
    return f"ai_{scene // 10 + 1:03d}_{scene % 10 + 1:03d}"


def _check_shared(scenes: SyntheticHypersim | SyntheticVirtualKitti, frames: int, workers: int) -> None:
    height, width = scenes.size
    if min(height, width) < 8 or height * width > MAX_SAMPLE_PIXELS:
        raise InputError(f"size needs sides of at least 8 and at most {MAX_SAMPLE_PIXELS} pixels, not {height} {width}")
    _check_range("frames", frames, 1, _MAX_FRAMES)
    _check_range("workers", workers, 1, MAX_PROCESSES)
    _check_range("antialias", scenes.antialias, 1, _MAX_ANTIALIAS)
    if scenes.seed < 0:
        raise InputError(f"seed must be at least 0, not {scenes.seed}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{name} must be at least {low} and at most {high}, not {value}")


def _take_folder(out: Path, pattern: str) -> None:
    check_writable(out, "--out")
    found = next(iter(sorted(out.glob(pattern))), None)
    if found is not None:
        raise InputError(f"{found} exists already; give an empty folder or remove the old scenes first")
    out.mkdir(parents=True, exist_ok=True)


def _run(write: Callable[[Row], None], rows: Sequence[Row], workers: int, title: str | None) -> None:
    """Call ``write`` for every row, in processes when there is more than one worker, with a progress bar."""
    with ExitStack() as stack:
        written: Iterator[None] = map(write, rows)
        if workers > 1:
            pool = stack.enter_context(process_pool(workers, __name__))
            written = pool.map(write, rows, chunksize=max(1, min(8, len(rows) // workers)))
        for _ in tqdm(written, title, total=len(rows), unit="frame", disable=title is None):
            pass


def _write_hdf5(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", track_order=False) as file:
        file.create_dataset("dataset", data=values, compression="gzip", compression_opts=1, track_times=False)


def _write_image(path: Path, image: Array, options: Sequence[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(path.suffix, image, list(options))
    path.write_bytes(encoded.tobytes())  # which says why it cannot; cv2.imwrite does not
