"""The camera of a point cloud where nobody knows it: estimated from a second prediction, that of normals."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from geometry.camera_recovery import recover_camera
from geometry.errors import InputError
from geometry.files.npy_arrays import read_npy_file
from geometry.modalities import Depth, Modality
from lightning_modules.inference.photos import Photo
from lightning_modules.inference.point_cloud import PointCloudCamera


@dataclass(frozen=True)
class CameraEstimator:
    """Estimates focal length and shift from depth and normals.

    Attributes:
        modality: what is predicted, depth.
        folder: folder of the normals that ``predict`` wrote for the same photos.

    Raises:
        InputError: something else is predicted, or the folder does not exist.
    """

    modality: Modality
    folder: Path

    def __post_init__(self) -> None:
        if not isinstance(self.modality, Depth):
            raise InputError(
                f"--normals need a model that predicts depth, but this one predicts {self.modality.title}."
            )
        if not self.folder.is_dir():
            raise InputError(f"--normals {self.folder} is not a folder; give the --output of a model of normals.")

    def estimate(
        self, photo: Photo, prediction: np.ndarray, metres: np.ndarray | None, camera: PointCloudCamera
    ) -> tuple[np.ndarray, PointCloudCamera, str]:
        """Return depth (H,W) in metres or, without anchors, up to scale, the camera, and a sentence about it.

        Args:
            photo: the photo.
            prediction: (H,W) float32, published depth.
            metres: depth in metres, if there are anchors.
            camera: says the depth of the nearest point where there are none.

        Raises:
            InputError: the normals are missing or of another size, no camera fits, or depth is not linear.
        """
        assert isinstance(self.modality, Depth)
        if metres is None and not self.modality.parameterization.is_linear:
            name = self.modality.parameterization.name
            raise InputError(f"a camera can be estimated from depth predicted as {name} with --anchors alone.")
        depth = torch.from_numpy(prediction if metres is None else metres)
        found = recover_camera(depth, torch.from_numpy(self._normals(photo)), is_shift_known=metres is not None)
        height, width = prediction.shape
        fov_deg = 2 * math.degrees(math.atan(max(height, width) / 2 / found.focal_length_px))
        says = f"camera estimated, not measured: focal length {found.focal_length_px:.1f} px ({fov_deg:.1f} degrees)"
        if metres is None:
            shifted = prediction.astype(np.float64) + found.shift
            metres = (shifted * (camera.near_m / shifted.min())).astype(np.float32)
            says += f", the farthest point {shifted.max() / shifted.min():.2f} times as far as the nearest"
        intrinsics = (found.focal_length_px, found.focal_length_px, width / 2, height / 2)
        return metres, replace(camera, intrinsics=intrinsics), says

    def _normals(self, photo: Photo) -> np.ndarray:
        """Return the normals (3,H,W) of a photo."""
        path = self.folder / photo.folder / f"{photo.stem}_normals.npy"
        try:
            values = read_npy_file(path)
        except FileNotFoundError as error:
            raise InputError(f"--normals: {path} is missing; predict the normals first.") from error
        if values.ndim != 3 or values.shape[2] != 3 or values.dtype.kind != "f":
            raise InputError(f"--normals: {path} is {values.dtype} {values.shape}, not height x width x 3 numbers.")
        return np.ascontiguousarray(np.moveaxis(values, 2, 0))
