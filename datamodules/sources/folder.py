"""Your own data: a folder of images with depth, normals or other modalities, as a raw data set.

Which files belong together is decided in ``folder_frames``, where cameras come from in ``folder_cameras``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.sources.array_files import NAMING_SUFFIXES, read_array_file, require_exr_reader
from datamodules.sources.fitting import Shape
from datamodules.sources.folder_cameras import FolderCameras
from datamodules.sources.folder_files import read_normals, read_values, require_size
from datamodules.sources.folder_frames import FolderFrame, FolderSplit, NamedFiles, match_files
from datamodules.sources.image_files import read_image
from datamodules.sources.protocol import FrameList, PreparedSample
from geometry.camera import camera_from_intrinsics, depth_from_ray_distance, pixel_rays
from geometry.errors import InputError
from geometry.modalities import modality_named
from geometry.normals import FLOAT16_ERROR, convert_frame, face_camera, normals_from_depth, renormalize

Array = np.ndarray
DepthKind = Literal["planar", "ray-distance"]
NormalsFrame = Literal["opengl", "opencv", "dsine"]

NEAR_PLANE_M = 1e-3
FAR_PLANE_M = 1000.0
# float16, in which depth is stored, ends here.
LARGEST_DEPTH_M = 65504.0
# Normals that face the camera are the rule in every frame; if nearly all look away, the frame was misnamed.
MAX_SHARE_AWAY = 0.9


@dataclass(frozen=True)
class DepthFormat:
    """What the numbers in depth files mean. Zero, negative, NaN and infinite always mean unknown.

    Attributes:
        units_per_metre: 1000 for millimetres, 256 for KITTI's PNGs. None means metres and is refused for integers.
        kind: "planar" (z, along the viewing axis) or "ray-distance" (to the camera's centre).
        unknown: further stored values that mean unknown, for instance 65535.
        relative_error: what the sensor's noise and steps amount to relative to depth, 0.005 for a Kinect. Normals are
            computed after averaging errors of that size within surfaces; stored depth stays as it is.
        name: which array of .npz files or channel of .exr files to take; None takes the obvious one.
    """

    units_per_metre: float | None = None
    kind: DepthKind = "planar"
    unknown: tuple[float, ...] = ()
    relative_error: float = 0.0
    name: str | None = None


@dataclass(frozen=True)
class FolderDataset:
    """Images with any set of modalities, and perhaps intrinsics, in files of your own.

    Attributes:
        images: files of the images.
        depth: files of the depth, or None.
        shape: size of the samples.
        depth_format: what the numbers in depth files mean.
        normals: files of the normals, "from-depth" to compute them (needs cameras), or "none".
        normals_frame: axes of the normals in files; see ``geometry.normals.convert_frame``.
        cameras: where intrinsics come from.
        split: which frames are held out.
        skip_missing: leave out images without a target in place of stopping.
        name: name of the prepared data set.
        near_plane_m: smallest valid depth in metres.
        far_plane_m: largest valid depth in metres.
        others: files of further modalities.
    """

    images: NamedFiles
    depth: NamedFiles | None
    shape: Shape
    depth_format: DepthFormat = DepthFormat()
    normals: NamedFiles | Literal["from-depth", "none"] = "none"
    normals_frame: NormalsFrame = "opengl"
    cameras: FolderCameras = field(default_factory=FolderCameras)
    split: FolderSplit = field(default_factory=FolderSplit)
    skip_missing: bool = False
    name: str = "folder"
    near_plane_m: float = NEAR_PLANE_M
    far_plane_m: float = FAR_PLANE_M
    others: Mapping[str, NamedFiles] = field(default_factory=dict)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of every prepared sample."""
        return self.shape.image_size

    @property
    def modalities(self) -> tuple[str, ...]:
        """What every sample holds."""
        has_own = {"depth": self.depth is not None, "normals": self.normals != "none"}
        return (*(name for name, there in has_own.items() if there), *self.others)

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Near and far plane."""
        return {} if self.depth is None else {"depth": (self.near_plane_m, self.far_plane_m)}

    def options(self) -> dict[str, Any]:
        """Return the choices that shape the samples."""
        return {
            "source": "folder",
            "image_pattern": self.images.pattern,
            "depth_pattern": self.depth and self.depth.pattern,
            "array_name": self.depth_format.name,
            "size": list(self.image_size),
            "sized_by": self.shape.how,
            "depth_scale": self.depth_format.units_per_metre,
            "depth_kind": self.depth_format.kind,
            "depth_error": self.depth_format.relative_error,
            "depth_unknown": list(self.depth_format.unknown),
            "normals": self.normals if isinstance(self.normals, str) else "native",
            "normals_frame": self.normals_frame,
            **{f"{name}_pattern": files.pattern for name, files in self.others.items()},
            **self.cameras.options(),
            **self.split.options(),
        }

    def list_frames(self) -> FrameList:
        """Return the images with their targets by split.

        Raises:
            InputError: an option is out of range or does not go with another, or files do not fit together.
        """
        self._check_options()
        frames, left_out = match_files(self.images, self._files(), self.skip_missing)
        suffixes = {path.suffix.lower() for frame in frames for path in frame.targets.values()}
        if self.depth_format.name is not None and not suffixes & set(NAMING_SUFFIXES):
            raise InputError(
                f"--array_name {self.depth_format.name}: none of the depth files has arrays with names; "
                f"{' and '.join(NAMING_SUFFIXES)} files have. Leave the option out."
            )
        if ".exr" in suffixes:
            require_exr_reader()
        listed = self.split.apply(frames)
        if not self.cameras.known:
            left_out.append(
                "Cameras: none given, so normals cannot be computed and samples carry no camera. "
                "Give --intrinsics, --cameras or --fov_deg to change that."
            )
        return FrameList(listed.splits, [*left_out, *listed.notices])

    def load(self, frame: FolderFrame) -> PreparedSample:
        """Return a frame in the project's own units and axes.

        Raises:
            InputError: one of the frame's files is missing, unreadable, of another size, or means something else than
                the options say.
        """
        image = read_image(frame.image)
        size = (image.shape[0], image.shape[1])
        camera, camera_source = self._camera(frame, size)
        rays = None if camera is None else pixel_rays(camera, *size, self.cameras.pixel_center).float()
        info = {"source": frame.identifier, "camera": camera_source}
        targets, depth, error_m = {}, None, 0.0
        if self.depth is not None:
            depth, error_m = self._depth(frame.targets["depth"], size, rays)
            targets["depth"] = depth[0].numpy()
        normals, info["normals"] = self._normals(frame, size, depth, rays, error_m)
        if normals is not None:
            targets["normals"] = normals.numpy()
        for name in self.others:
            targets[name] = read_values(frame.targets[name], modality_named(name)(), size)
        full = PreparedSample(
            image=image,
            targets=targets,
            camera_from_pixel=None if camera is None else camera.numpy(),
            pixel_center=self.cameras.pixel_center,
            info=info,
        )
        return self.shape.fit(full, frame.image)

    def _files(self) -> dict[str, NamedFiles]:
        """Return where the values of every modality that is in files are."""
        own = {"depth": self.depth, "normals": None if isinstance(self.normals, str) else self.normals}
        return {name: files for name, files in (own | dict(self.others)).items() if files is not None}

    def _depth(self, path: Path, size: tuple[int, int], rays: Tensor | None) -> tuple[Tensor, float]:
        """Return planar depth (1,H,W), 0 where unknown or out of range, and the largest rounding error in metres."""
        metres, error_m = self._read_depth(path, size)
        depth = torch.from_numpy(metres)[None]
        if self.depth_format.kind == "ray-distance":
            assert rays is not None, "checked when frames are listed"
            depth = depth_from_ray_distance(depth, rays)
        valid = depth.isfinite() & (depth >= self.near_plane_m) & (depth <= self.far_plane_m)
        return torch.where(valid, depth, 0.0), error_m

    def _read_depth(self, path: Path, size: tuple[int, int]) -> tuple[Array, float]:
        """Return metres (H,W) float32, 0 where unknown, and the largest rounding error in metres."""
        stored = require_size(read_array_file(path, 1, self.depth_format.name), size, path)
        scale = self.depth_format.units_per_metre
        if scale is None and stored.dtype.kind != "f":
            raise InputError(
                f"{path} holds whole numbers ({stored.dtype}): say how many make a metre with --depth_scale "
                "(1000 for millimetres, 256 for KITTI)."
            )
        # 32-bit whole numbers and float64 need more digits than float32 has before they are divided.
        metres = (stored.astype(np.float64) / (scale or 1.0)).astype(np.float32)
        known = np.isfinite(metres) & (metres > 0) & ~np.isin(stored, self.depth_format.unknown)
        error_m = 0.5 / scale if scale and stored.dtype.kind != "f" else 0.0
        return np.where(known, metres, np.float32(0)), error_m

    def _camera(self, frame: FolderFrame, size: tuple[int, int]) -> tuple[Tensor | None, str]:
        if not self.cameras.known:
            return None, "none"
        intrinsics, source = self.cameras.matrix(frame.identifier, size)
        return camera_from_intrinsics(intrinsics), source

    def _normals(
        self, frame: FolderFrame, size: tuple[int, int], depth: Tensor | None, rays: Tensor | None, error_m: float
    ) -> tuple[Tensor | None, str]:
        """Return normals (3,H,W) in our frame, zero where unknown, and where they come from."""
        if self.normals == "none":
            return None, "none"
        if self.normals == "from-depth":
            assert rays is not None and depth is not None, "checked when frames are listed"
            relative_error = max(self.depth_format.relative_error, 0.0 if error_m else FLOAT16_ERROR)
            return normals_from_depth(depth, rays, depth > 0, relative_error, error_m)[0], "from-depth"
        path = frame.targets["normals"]
        vectors = read_normals(path, size)
        known = (vectors != 0).any(dim=0, keepdim=True)
        normals = renormalize(convert_frame(vectors, self.normals_frame, "opengl"), known)
        away = (normals[2:] < 0 if rays is None else (normals * rays).sum(dim=0, keepdim=True) > 0)[known]
        if away.numel() and float(away.float().mean()) > MAX_SHARE_AWAY:
            raise InputError(
                f"{path}: {100 * float(away.float().mean()):.0f} % of the normals point away from the camera. "
                f"--normals_frame {self.normals_frame} does not seem to be their frame."
            )
        return (normals if rays is None else face_camera(normals, rays)), "native"

    def _check_options(self) -> None:
        self.cameras.check()
        if not self.modalities:
            raise InputError(
                "there is nothing to prepare beside images: give the folder of a modality, such as --depth."
            )
        if self.normals == "from-depth" and self.depth is None:
            raise InputError("--normals from-depth needs --depth.")
        scale = self.depth_format.units_per_metre
        if scale is not None and not (np.isfinite(scale) and scale > 0):
            raise InputError(f"--depth_scale must be a positive number of units per metre, not {scale}.")
        if not 0 < self.near_plane_m < self.far_plane_m <= LARGEST_DEPTH_M:
            raise InputError(
                f"--near and --far must be metres with 0 < near < far <= {LARGEST_DEPTH_M:.0f}, "
                f"not {self.near_plane_m} and {self.far_plane_m}."
            )
        if not 0 <= self.depth_format.relative_error < 0.5:
            raise InputError(
                f"--depth_error is a share of depth such as 0.005, not {self.depth_format.relative_error}."
            )
        for wanted, what in (
            (self.depth_format.kind == "ray-distance", "--depth_kind ray-distance"),
            (self.normals == "from-depth", "--normals from-depth"),
        ):
            if wanted and not self.cameras.known:
                raise InputError(f"{what} needs cameras: give --intrinsics, --cameras or --fov_deg.")
