"""Scenes whose edges are known to the pixel."""

import numpy as np
import torch
from torch.nn.functional import normalize

from geometry.batch import Target
from geometry.camera import camera_from_intrinsics

NEAR_M, FAR_M = 2.0, 5.0


def step(size=(24, 40), column=20, near=NEAR_M, far=FAR_M):
    """Return depth (1,1,H,W) that is near up to a column and far from there on."""
    depth = torch.full((1, 1, *size), far)
    depth[..., :column] = near
    return depth


def everywhere(depth):
    return torch.ones_like(depth, dtype=torch.bool)


def random_scene(seed, size=(40, 56)):
    """Return depth (H,W) of boxes before a slope, a prediction that is off at their edges, and where depth is known."""
    generator = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    depth = 4 + 0.03 * columns + 0.02 * rows
    for _ in range(8):
        top, left = generator.integers(0, size[0] - 6), generator.integers(0, size[1] - 6)
        height, width = generator.integers(3, 14, 2)
        depth[top : top + height, left : left + width] = generator.uniform(0.8, 4)
    shifted = np.roll(depth, int(generator.integers(-1, 3)), axis=1)
    prediction = (0.7 * depth + 0.3 * shifted) * (1 + 0.02 * generator.normal(size=size))
    tensors = (torch.from_numpy(values.astype(np.float32)) for values in (depth, prediction))
    return *tensors, torch.from_numpy(generator.random(size) < 0.95)


def random_normal_scene(seed, size=(30, 44)):
    """Return unit normals (3,H,W) of tilted tiles, a prediction that is off, and where normals are known."""
    generator = np.random.default_rng(seed)
    tiles = generator.normal(size=(3, 5, 6)) * 0.5 + np.array([0, 0, 1.5])[:, None, None]
    rows, columns = np.indices(size)
    normals = normalize(torch.from_numpy(tiles[:, rows // 6 % 5, columns // 8 % 6]), dim=0)
    guess = normals.roll(1, dims=2) + 0.3 * torch.from_numpy(generator.normal(size=(3, *size)))
    return normals.float(), guess.float(), torch.from_numpy(generator.random(size) < 0.95)


def plane_scene(seed, size=(60, 80), noise=0.01):
    """Return a scene of a wall, a floor and a table too small to count, seen by a pinhole.

    Returns:
        depth and prediction (H,W); planes as a reference of iBims-1, with a batch axis; the same as in its files, that
        is parameters (3,7) and numbers (H,W); camera_from_pixel (3,3); and the intrinsics as in its files (3,3).
    """
    generator = np.random.default_rng(seed)
    fx, fy, cx, cy = 90.0, 92.0, size[1] / 2 + 1.3, size[0] / 2 - 0.7  # pixel centres at 1, 2, ... as in MATLAB
    columns, rows = np.meshgrid(np.arange(1, size[1] + 1), np.arange(1, size[0] + 1))
    rays = np.stack([(columns - cx) / fx, np.ones(size), -(rows - cy) / fy])  # right, ahead, up
    numbers = np.zeros(size, int)
    numbers[: size[0] // 2], numbers[size[0] // 2 + 5 :] = 1, 2
    numbers[2:6, 2:6] = 3
    depth, parameters = np.full(size, 4.0), np.zeros((3, 7))
    for number, (normal, distance) in enumerate([((0.3, -1, 0.1), 4), ((0, -0.1, 1), -1.5), ((0, 0, 1), 1)], start=1):
        unit = np.array(normal) / np.linalg.norm(normal)
        here = numbers == number
        depth[here] = np.abs(distance / np.einsum("c,chw->hw", unit, rays))[here]
        parameters[number - 1, 4:] = unit
    prediction = 1.7 * depth * (1 + noise * generator.normal(size=size) + 0.002 * columns)
    normals = np.zeros((3, *size))
    for number, (right, ahead, up) in enumerate(parameters[:, 4:], start=1):
        normals[:, numbers == number] = np.array([right, up, -ahead])[:, None]
    values = torch.from_numpy(np.concatenate([numbers[None], normals])[None].astype(np.float32))
    planes = Target(values, torch.from_numpy(numbers > 0)[None, None])
    intrinsics = torch.tensor([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]], dtype=torch.float64)
    in_files = np.array([[fx, 0, 0], [0, fy, 0], [cx, cy, 1]])
    tensors = (torch.from_numpy(array.astype(np.float32)) for array in (depth, prediction))
    return *tensors, planes, (parameters, numbers), camera_from_intrinsics(intrinsics), in_files
