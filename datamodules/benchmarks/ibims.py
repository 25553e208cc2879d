"""iBims-1: 100 indoor scenes with laser-scanned depth, annotated edges and planes, one MATLAB file each."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array, Benchmark, Sample
from datamodules.untrusted.mat_arrays import decode_mat
from geometry.camera import camera_from_intrinsics
from geometry.errors import InputError

_PLANES = ("wall", "table", "floor")
# In a row of parameters; right, ahead and up.
_NORMAL = slice(4, 7)


class IbimsDepth(Benchmark):
    """iBims-1 as its authors release it, ``ibims1_core_mat.zip``, with the edges and planes of its own metrics."""

    name = "ibims"
    modality = "depth"
    place = 6
    archives = ("ibims1_core_mat.zip",)
    folders = ("ibims1_core_mat",)
    image_pattern = r"(?P<file>[a-z]+_\d\d\.mat)"
    truth = ("{file}",)
    num_images = 100
    value_range: ClassVar[tuple[float, float]] = (1e-3, 50.0)
    metrics = ("boundary_error", "planarity")

    def find(self, root: Path) -> BenchmarkFiles | None:
        """Return the files under a root, or None.

        Raises:
            InputError: scikit-image is missing, or an archive cannot be read.
        """
        files = super().find(root)
        if files is not None and find_spec("skimage") is None:
            raise InputError("its boundary errors need scikit-image: pip install -e '.[edges]'")
        return files

    def read(self, files: BenchmarkFiles, image: str, paths: Sequence[str]) -> Sample:
        """Return a sample with the references ``edges`` and ``planes``, and its camera."""
        fields = _fields(files.read(paths[0]))
        truth, mask = _depth(fields)
        pixels = fields["rgb"]
        if pixels.shape != (*truth.shape, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"its image is {pixels.dtype} {pixels.shape}")
        edges = _plane(fields, "edges", truth.shape) != 0
        references = {"edges": (edges.astype(np.float32), edges), "planes": _planes(fields, mask)}
        return Sample(np.ascontiguousarray(pixels), truth, mask, references, _camera(fields["calib"]))

    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Return depth in metres; what is invalid, transparent or missing does not count."""
        return _depth(_fields(files.read(paths[0])))


def _fields(data: bytes) -> dict[str, Array]:
    """Return the fields of the structure ``data`` in a file."""
    record: Any = decode_mat(data).get("data")
    if not isinstance(record, np.ndarray) or record.dtype.names is None or record.size != 1:
        raise ValueError("it holds no structure named data")
    return {name: record.flat[0][name] for name in record.dtype.names}


def _plane(fields: dict[str, Array], name: str, shape: tuple[int, ...] | None = None) -> Array:
    values = fields.get(name)
    if values is None or values.ndim != 2 or values.dtype.kind not in "uifb" or shape not in (None, values.shape):
        raise ValueError(f"its field {name} is missing or no image of the same size")
    return np.ascontiguousarray(values)


def _depth(fields: dict[str, Array]) -> tuple[Array, Array]:
    depth = _plane(fields, "depth").astype(np.float32)
    seen = (_plane(fields, f"mask_{kind}", depth.shape) != 0 for kind in ("invalid", "transp"))
    return depth, np.logical_and(*seen) & np.isfinite(depth) & (depth > 0)


def _planes(fields: dict[str, Array], mask: Array) -> tuple[Array, Array]:
    """Return number and normal of the plane at every pixel, (H,W,4), and where there is one.

    The file's normals are right, ahead, up; ours right, up, toward the viewer.
    """
    values, there, before = np.zeros((*mask.shape, 4), np.float32), np.zeros(mask.shape, bool), 0
    for kind in _PLANES:
        parameters = fields.get(f"mask_{kind}_paras")
        if parameters is None or parameters.size == 0:
            continue
        numbers = _plane(fields, f"mask_{kind}", mask.shape)
        for index, row in enumerate(np.atleast_2d(parameters), start=1):
            right, ahead, up = row[_NORMAL]
            here = (numbers == index) & mask
            values[here] = (before + index, right, up, -ahead)
            there |= here
        before += len(np.atleast_2d(parameters))
    return values, there


def _camera(calib: Array) -> Array:
    """Return ``camera_from_pixel``; the file has the transposed matrix, for pixel centres at 1, 2, ..."""
    if calib.shape != (3, 3):
        raise ValueError(f"its calibration has the shape {calib.shape}, not (3, 3)")
    intrinsics = torch.from_numpy(np.ascontiguousarray(calib.T).astype(np.float64))
    intrinsics[:2, 2] -= 0.5
    return camera_from_intrinsics(intrinsics).numpy().astype(np.float32)
