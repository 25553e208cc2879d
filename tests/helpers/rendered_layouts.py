"""Rendered rooms and streets in the raw layouts of further data sets, with the depth that was rendered."""

import json
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import torch

from geometry.camera import camera_from_intrinsics, pixel_rays
from synthetic_scenes.render import Frame, Pose, render
from synthetic_scenes.rooms import ROOMS, random_pose, random_room
from synthetic_scenes.streets import WEATHER, random_drive, random_street

SIZE = (48, 64)
BASELINE_M = 0.2


def rays_through(focal_x: float, focal_y: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Rays (3,H,W) of a camera whose principal point is the middle of the image."""
    height, width = size
    matrix = torch.tensor([[focal_x, 0, width / 2], [0, focal_y, height / 2], [0, 0, 1]], dtype=torch.float64)
    return pixel_rays(camera_from_intrinsics(matrix), *size, 0.5).numpy().astype(np.float32)


def street(focal_x: float, focal_y: float, size: tuple[int, int] = SIZE, seed: int = 0) -> Frame:
    """A street under the sky."""
    rng = np.random.default_rng(seed)
    scene = random_street(rng, WEATHER["clone"])
    return render(scene, random_drive(rng, WEATHER["clone"]), rays_through(focal_x, focal_y, size))


def room(focal: float, size: tuple[int, int] = SIZE, seed: int = 0) -> tuple[Frame, Frame]:
    """A room as two cameras see it, the second to the right of the first."""
    scene, extent = random_room(np.random.default_rng([1, seed]), ROOMS)
    pose = random_pose(np.random.default_rng([2, seed]), scene, extent, ROOMS)
    right = Pose(pose.position + pose.rotation @ np.array([BASELINE_M, 0, 0], np.float32), pose.rotation)
    rays = rays_through(focal, focal, size)
    return render(scene, pose, rays), render(scene, right, rays)


def write_tartanair(raw: Path, version: int, place: str = "office", number: int = 0, repeated: bool = False) -> Frame:
    """Write a frame of TartanAir; the sky is 10 km away."""
    size = SIZE if version == 1 else (64, 64)
    frame = street(size[1] / 2, size[1] / 2, size, number)
    far = np.where(np.isfinite(frame.depth), frame.depth, 10_000).astype(np.float32)
    top = raw / place / place if repeated else raw / place
    if version == 1:
        flight, camera = top / "Easy/P000", "left"
    else:
        flight, camera = top / "Data_easy/P000", "lcam_front"
    _write_colour(flight / f"image_{camera}/{number:06d}_{camera}.png", frame)
    depth = flight / f"depth_{camera}/{number:06d}_{camera}_depth"
    depth.parent.mkdir(parents=True, exist_ok=True)
    if version == 1:
        np.save(depth.with_suffix(".npy"), far)
    else:
        cv2.imwrite(str(depth.with_suffix(".png")), far[..., None].view(np.uint8))
    return frame


def write_urbansyn(raw: Path, number: int = 1) -> Frame:
    """Write a frame of UrbanSyn, of a camera whose pixels are no squares; the sky is as far as it gets."""
    frame = street(50.0, 40.0, seed=number)
    _write_colour(raw / f"rgb/rgb_{number:04d}.png", frame)
    depth = np.where(np.isfinite(frame.depth), frame.depth / 1e5, 1).astype(np.float16)
    _write_exr(raw / f"depth/depth_{number:04d}.exr", "V", depth)
    height, width = SIZE
    camera = {"focalLength_mm": 25.0, "sensorWidth_mm": 25.0 * width / 50, "sensorHeight_mm": 25.0 * height / 40}
    (raw / "camera_metadata.json").write_text(json.dumps({"parameters": [{"Camera": camera}]}))
    return frame


def write_unreal_stereo(raw: Path, scene: str = "00000", number: int = 0) -> tuple[Frame, Frame]:
    """Write both images of a frame of UnrealStereo4K."""
    focal, frames = 40.0, room(40.0, seed=number)
    height, width = SIZE
    turn = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # camera from world, of a world with other axes
    for index, frame in enumerate(frames):
        _write_colour(raw / scene / f"Image{index}/{number:05d}.png", frame)
        place = raw / scene / f"Disp{index}/{number:05d}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        disparity = np.where(np.isfinite(frame.depth), focal * BASELINE_M / frame.depth, 0)
        np.save(place, disparity.astype(np.float32))
        pose = np.concatenate([turn, np.array([[1.0 - index * BASELINE_M], [2.0], [3.0]])], axis=1)
        numbers = [focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1]
        text = "\n".join(" ".join(f"{value:.9g}" for value in line) for line in (numbers, pose.ravel()))
        file = raw / scene / f"Extrinsics{index}/{number:05d}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return frames


def write_irs(raw: Path, folder: str = "Home/ArchvizKitchen", number: int = 1) -> Frame:
    """Write the left image of a frame of IRS and its disparity."""
    focal = SIZE[1] / 2
    frame, _ = room(focal, seed=number)
    _write_colour(raw / folder / f"l_{number:05d}.png", frame)
    disparity = np.where(np.isfinite(frame.depth), focal * 0.1 / frame.depth, 0)
    _write_exr(raw / folder / f"d_{number:05d}.exr", "G", disparity.astype(np.float32))
    return frame


def _write_exr(path: Path, channel: str, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {channel: OpenEXR.Channel(values)}).write(str(path))


def _write_colour(path: Path, frame: Frame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.clip(frame.color, 0, 1) ** (1 / 2.2)
    cv2.imwrite(str(path), np.round(colour[..., ::-1] * 255).astype(np.uint8))
