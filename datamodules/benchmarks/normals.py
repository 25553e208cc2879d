"""Normals in the layout of DSINE's evaluation data (``dsine_eval``), or as Marigold's NumPy copies of it."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from datamodules.benchmarks.decoding import decode_normals_exr, decode_normals_npy, decode_normals_png
from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array, Benchmark
from geometry.normals import convert_frame

_DECODERS = {"png": decode_normals_png, "exr": decode_normals_exr, "npy": decode_normals_npy}


class _DsineNormals(Benchmark):
    """Images ``*_img.png`` or ``.jpg`` beside normals ``*_normal.png``, ``.exr`` or ``.npy``, all pixels known.

    Convention:
        DSINE's files (.png, .exr) have x left, y up, z toward the viewer, Marigold's (.npy) x right, which is ours.
    """

    modality = "normals"
    has_equal_sizes = True
    has_color_cast = True
    archives = ("dsine_eval.zip", "dsine_eval.tar")
    truth: ClassVar[tuple[str, ...]] = ("{stem}_normal.png",)

    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Return unit normals in our frame and the mask of the pixels that count."""
        suffix = paths[0].rsplit(".", 1)[-1]
        if suffix not in _DECODERS:
            raise ValueError(f"normals come as {', '.join(_DECODERS)}, not {suffix}")
        normals, mask = _DECODERS[suffix](files.read(paths[0]))
        length = np.linalg.norm(normals, axis=2, keepdims=True)
        normals = np.where(mask[..., None], normals / np.maximum(length, 1e-6), 0).astype(np.float32)
        if suffix == "npy":
            return normals, mask
        planes = torch.from_numpy(normals).permute(2, 0, 1)
        return convert_frame(planes, "dsine", "opengl").permute(1, 2, 0).numpy(), mask


class NyuNormals(_DsineNormals):
    """NYUv2 test set, normals of GeoNet."""

    name = "nyuv2"
    place = 1
    folders = ("dsine_eval/nyuv2", "nyuv2")
    image_pattern = r"(?P<stem>test/\d{6})_img\.png"
    num_images = 654


class ScanNetNormals(_DsineNormals):
    """ScanNet test frames, normals and split of FrameNet."""

    name = "scannet"
    place = 2
    folders = ("dsine_eval/scannet", "scannet")
    image_pattern = r"(?P<stem>scene\d+_\d+/\d{6})_img\.png"
    num_images = 300


class IbimsNormals(_DsineNormals):
    """iBims-1."""

    name = "ibims"
    place = 3
    folders = ("dsine_eval/ibims", "ibims")
    image_pattern = r"(?P<stem>[a-z]+_\d\d)_img\.png"
    num_images = 100
    truth = ("{stem}_normal.exr",)


class SintelNormals(_DsineNormals):
    """Sintel's rendered film, training sequences."""

    name = "sintel"
    place = 4
    folders = ("dsine_eval/sintel", "sintel")
    image_pattern = r"(?P<stem>[a-z]+_\d/frame_\d{4})_img\.png"
    num_images = 1064
    truth = ("{stem}_normal.exr",)
