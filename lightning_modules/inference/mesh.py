"""A grid of points as a coloured surface in the GLB format, which browsers show."""

import json
import struct

import numpy as np

from lightning_modules.inference.point_cloud import ply_bytes

# A triangle whose corners differ more in depth, relative to it, spans two objects and is left out.
_LARGEST_STEP = 0.06
_FLOAT, _UINT32, _UINT8 = 5126, 5125, 5121


def glb_bytes(points: np.ndarray, colors: np.ndarray) -> bytes:
    """Return a surface through points as the bytes of a GLB file.

    Args:
        points: (h,w,3) float32, in a frame with y up and z toward the viewer.
        colors: (h,w,3) uint8, sRGB.

    Source:
        Khronos Group, glTF 2.0 specification: binary container, and vertex colours in linear light.
    """
    positions = np.ascontiguousarray(points.reshape(-1, 3), np.float32)
    linear = ((colors.reshape(-1, 3) / 255) ** 2.2 * 255).round().astype(np.uint8)
    painted = np.concatenate([linear, np.full((len(linear), 1), 255, np.uint8)], axis=1)
    triangles = _triangles(-points[..., 2])
    blobs = [positions.tobytes(), painted.tobytes(), triangles.tobytes()]
    offsets = [sum(map(len, blobs[:index])) for index in range(len(blobs))]
    accessors = [
        {"componentType": _FLOAT, "count": len(positions), "type": "VEC3"}
        | {"min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()},
        {"componentType": _UINT8, "normalized": True, "count": len(painted), "type": "VEC4"},
        {"componentType": _UINT32, "count": triangles.size, "type": "SCALAR"},
    ]
    scene = {
        "asset": {"version": "2.0"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "materials": [{"extensions": {"KHR_materials_unlit": {}}, "doubleSided": True}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0}]}],
        "accessors": [accessor | {"bufferView": index} for index, accessor in enumerate(accessors)],
        "bufferViews": [
            {"buffer": 0, "byteOffset": offset, "byteLength": len(blob)}
            for offset, blob in zip(offsets, blobs, strict=True)
        ],
        "buffers": [{"byteLength": sum(map(len, blobs))}],
    }
    text = json.dumps(scene).encode()
    chunks = _chunk(b"JSON", text + b" " * (-len(text) % 4)) + _chunk(b"BIN\0", b"".join(blobs))
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def ply_mesh_bytes(points: np.ndarray, colors: np.ndarray) -> bytes:
    """Return a surface through points as the bytes of a binary PLY file with faces.

    Args:
        points: (h,w,3) float32, in a frame with y up and z toward the viewer.
        colors: (h,w,3) uint8, sRGB.
    """
    return ply_bytes(points, colors, _triangles(-points[..., 2]))


def _triangles(depth: np.ndarray) -> np.ndarray:
    """Return (N,3) uint32 corners of the triangles between neighbours, without those across depth edges."""
    height, width = depth.shape
    index = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    here, right, below, across = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    corners = np.concatenate(
        [np.stack([here, below, right], -1).reshape(-1, 3), np.stack([right, below, across], -1).reshape(-1, 3)]
    )
    values = depth.reshape(-1)[corners]
    is_surface = values.max(axis=1) - values.min(axis=1) <= _LARGEST_STEP * values.min(axis=1)
    return corners[is_surface] if is_surface.any() else corners


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<I4s", len(content), kind) + content
