"""Equirectangular panoramas: the direction of every pixel, perspective views of them, and values seen in a view.

Convention (the whole file):
    The frame of a panorama is that of a camera that looks at its centre: x right, y up, z toward the viewer, so the
    centre lies along (0, 0, -1), the left and the right edge along (0, 0, 1), and the top row around (0, 1, 0). Columns
    are evenly spaced in longitude over 360 degrees and rows in latitude over 180. A view is square, of 90 degrees, with
    the frame of its own camera; its rotation maps vectors from that frame to the panorama's.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Pitch in degrees, number of views around, yaw of the first in steps. Neighbours overlap by a third or more.
_RINGS = ((0.0, 6, 0.0), (45.0, 6, 0.5), (-45.0, 6, 0.5), (90.0, 1, 0.0), (-90.0, 1, 0.0))


def panorama_directions(height: int, width: int, rows: slice = slice(None)) -> Tensor:
    """Return the unit vectors (3,h,W) float64 in which the pixels of a panorama look.

    Args:
        height: of the panorama in pixels.
        width: of the panorama in pixels.
        rows: those that are wanted.
    """
    latitude = (0.5 - (torch.arange(height, dtype=torch.float64) + 0.5) / height)[rows] * math.pi
    longitude = ((torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5) * 2 * math.pi
    across = latitude.cos()[:, None]
    x, z = across * longitude.sin(), -across * longitude.cos()
    return torch.stack([x, latitude.sin()[:, None].expand_as(x), z])


def view_rotations() -> Tensor:
    """Return the rotations (20,3,3) float64 of views that cover all directions, and most of them several times."""
    turns = []
    for pitch_deg, count, first in _RINGS:
        pitch = math.radians(pitch_deg)
        for number in range(count):
            yaw = 2 * math.pi * (number + first) / count
            up = [[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]]
            # A turn to the right takes (0, 0, -1) to (sin yaw, 0, -cos yaw).
            around = [[math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0], [math.sin(yaw), 0, math.cos(yaw)]]
            turns.append(torch.tensor(around, dtype=torch.float64) @ torch.tensor(up, dtype=torch.float64))
    return torch.stack(turns)


def spread_directions(count: int) -> Tensor:
    """Return unit vectors (3,N) float64 that are evenly spread over the sphere, by the golden angle."""
    number = torch.arange(count, dtype=torch.float64) + 0.5
    y = 1 - 2 * number / count
    around = number * math.pi * (3 - math.sqrt(5))
    across = (1 - y * y).sqrt()
    return torch.stack([across * around.sin(), y, -across * around.cos()])


def view_directions(rotation: Tensor, size: int) -> Tensor:
    """Return the unit vectors (3,S,S) float64 in which the pixels of a view look, in the panorama's frame.

    Args:
        rotation: (3,3) float64, of the view.
        size: side of the view in pixels.
    """
    places = (torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 - 1
    x, y = places.expand(size, size), -places[:, None].expand(size, size)
    directions = torch.einsum("ij,jhw->ihw", rotation, torch.stack([x, y, -torch.ones_like(x)]))
    return directions / directions.norm(dim=0)


def places_in_view(directions: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where directions are seen in a view.

    Args:
        directions: (3,...) float64 unit vectors in the panorama's frame.
        rotation: (3,3) float64, of the view.

    Returns:
        ``(places, lengths, seen)``: (...,2) x to the right and y down, from -1 to 1 between the view's edges; (...) the
        distance along the ray by planar depth; (...) bool, whether the direction lies inside the view.
    """
    x, y, z = torch.einsum("ji,j...->i...", rotation, directions)
    ahead = (-z).clamp(min=1e-9)
    places = torch.stack([x / ahead, -y / ahead], dim=-1)
    return places, 1 / ahead, (z < 0) & (places.abs().amax(dim=-1) <= 1)


def values_at(values: Tensor, places: Tensor) -> Tensor:
    """Return values of a view at places in it, bilinear between pixels.

    Args:
        values: (C,S,S) float.
        places: (...,2) as ``places_in_view`` returns them; those outside get the nearest edge's value.

    Returns:
        (C,...), dtype of the values.
    """
    grid = places.reshape(1, 1, -1, 2).to(values.dtype)
    found = F.grid_sample(values[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[0, :, 0].reshape(len(values), *places.shape[:-1])


def panorama_at(panorama: Tensor, directions: Tensor) -> Tensor:
    """Return the values of a panorama in some directions, bilinear between pixels, and across its left and right edge.

    Args:
        panorama: (C,H,W) float.
        directions: (3,...) float64 unit vectors in the panorama's frame.

    Returns:
        (C,...), dtype of the panorama.
    """
    x, y, z = directions
    width = panorama.shape[2]
    wrapped = torch.cat([panorama[..., -1:], panorama, panorama[..., :1]], dim=2)
    longitude = torch.atan2(x, -z) / math.pi * (width / (width + 2))
    latitude = torch.asin(y.clamp(-1, 1)) / (math.pi / 2)
    return values_at(wrapped, torch.stack([longitude, -latitude], dim=-1))
