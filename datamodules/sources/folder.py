"""Your own data: a folder of images with depth, normals or other modalities, as a raw data set.

Which files belong together is decided in ``folder_frames``, where cameras come from in ``folder_cameras``.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.sources.array_files import NAMING_SUFFIXES, read_array_file, require_exr_reader
from datamodules.sources.fitting import Shape
from datamodules.sources.folder_cameras import FolderCameras
from datamodules.sources.folder_files import read_normals, read_values, require_size
from datamodules.sources.folder_frames import IMAGE_SUFFIXES, FolderFrame, FolderSplit, NamedFiles, match_files
from datamodules.sources.folder_options import Files, FurtherFiles, Meaning, Size, further_modalities
from datamodules.sources.image_files import read_image
from datamodules.sources.protocol import FrameList, PreparedSample
from datamodules.sources.registry import raw_dataset
from geometry.camera import camera_from_intrinsics, depth_from_ray_distance, pixel_rays
from geometry.errors import InputError
from geometry.modalities import modality_named
from geometry.normals import FLOAT16_ERROR, convert_frame, face_camera, normals_from_depth, renormalize

Array = np.ndarray

# float16, in which depth is stored, ends here.
LARGEST_DEPTH_M = 65504.0
# Normals that face the camera are the rule in every frame; if nearly all look away, the frame was misnamed.
MAX_SHARE_AWAY = 0.9


@raw_dataset
@dataclass(frozen=True)
class FolderDataset:
    """Prepare a folder of your own images with any set of modalities.

    Attributes:
        files: Files.
        further: Files of further modalities.
        meaning: What the numbers mean.
        cameras: Cameras.
        fit: Size.
        split: Split.
        name: Name in logs and shard names.
    """

    files: Files
    further: FurtherFiles = field(default_factory=FurtherFiles)  # type: ignore[valid-type]
    meaning: Meaning = field(default_factory=Meaning)
    cameras: FolderCameras = field(default_factory=FolderCameras)
    fit: Size = field(default_factory=Size)
    split: FolderSplit = field(default_factory=FolderSplit)
    name: str = "folder"

    source: ClassVar[str] = "folder"

    @property
    def images(self) -> NamedFiles:
        """Files of the images."""
        return NamedFiles(self.files.images, self.files.image_pattern)

    @cached_property
    def shape(self) -> Shape:
        """Size of the samples; that of the first image where none is given.

        Raises:
            InputError: there is no image to take it from.
        """
        if self.fit.size:
            return Shape(self.fit.size, "resize")
        if self.fit.crop:
            return Shape(self.fit.crop, "crop-bottom" if self.fit.crop_at == "bottom" else "crop")
        first = read_image(next(iter(self.images.scan(IMAGE_SUFFIXES, "image").values())))
        return Shape((first.shape[0], first.shape[1]))

    @property
    def normals(self) -> str:
        """Where normals come from: "native" (files), "from-depth" or "none"."""
        if self.files.normals is None:
            return "from-depth" if self.cameras.known and self.files.depth else "none"
        return "native" if self.files.has_normals else self.files.normals

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of every prepared sample."""
        return self.shape.image_size

    @property
    def modalities(self) -> tuple[str, ...]:
        """What every sample holds."""
        has_own = {"depth": self.files.depth is not None, "normals": self.normals != "none"}
        return (*(name for name, there in has_own.items() if there), *self._others())

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Near and far plane."""
        return {} if self.files.depth is None else {"depth": (self.meaning.near, self.meaning.far)}

    def options(self) -> dict[str, Any]:
        """Return the choices that shape the samples."""
        files, meaning = self.files, self.meaning
        return {
            "source": self.source,
            "image_pattern": files.image_pattern,
            "depth_pattern": files.depth and files.depth_pattern,
            "array_name": files.array_name,
            "size": list(self.image_size),
            "sized_by": self.shape.how,
            "depth_scale": meaning.depth_scale,
            "depth_kind": meaning.depth_kind,
            "depth_error": meaning.depth_error,
            "depth_unknown": list(meaning.depth_unknown),
            "normals": self.normals,
            "normals_frame": meaning.normals_frame,
            **{f"{name}_pattern": others.pattern for name, others in self._others().items()},
            **self.cameras.options(),
            **self.split.options(),
        }

    def list_frames(self) -> FrameList:
        """Return the images with their targets by split.

        Raises:
            InputError: an option is out of range or does not go with another, or files do not fit together.
        """
        self._check_options()
        targets = self.files.targets() | self._others()
        frames, left_out = match_files(self.images, targets, self.files.missing == "skip")
        suffixes = {path.suffix.lower() for frame in frames for path in frame.targets.values()}
        if self.files.array_name is not None and not suffixes & set(NAMING_SUFFIXES):
            raise InputError(
                f"--array_name {self.files.array_name}: none of the depth files has arrays with names; "
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
        if self.files.depth is not None:
            depth, error_m = self._depth(frame.targets["depth"], size, rays)
            targets["depth"] = depth[0].numpy()
        normals, info["normals"] = self._normals(frame, size, depth, rays, error_m)
        if normals is not None:
            targets["normals"] = normals.numpy()
        for name in self._others():
            targets[name] = read_values(frame.targets[name], modality_named(name)(), size)
        full = PreparedSample(
            image=image,
            targets=targets,
            camera_from_pixel=None if camera is None else camera.numpy(),
            pixel_center=self.cameras.pixel_center,
            info=info,
        )
        return self.shape.fit(full, frame.image)

    def _others(self) -> dict[str, NamedFiles]:
        """Return where the values of the further modalities are."""
        return {
            name: NamedFiles(folder, getattr(self.further, f"{name}_pattern"))
            for name in further_modalities()
            if (folder := getattr(self.further, name, None))  # None for one registered after the options were made
        }

    def _depth(self, path: Path, size: tuple[int, int], rays: Tensor | None) -> tuple[Tensor, float]:
        """Return planar depth (1,H,W), 0 where unknown or out of range, and the largest rounding error in metres."""
        metres, error_m = self._read_depth(path, size)
        depth = torch.from_numpy(metres)[None]
        if self.meaning.depth_kind == "ray-distance":
            assert rays is not None, "checked when frames are listed"
            depth = depth_from_ray_distance(depth, rays)
        valid = depth.isfinite() & (depth >= self.meaning.near) & (depth <= self.meaning.far)
        return torch.where(valid, depth, 0.0), error_m

    def _read_depth(self, path: Path, size: tuple[int, int]) -> tuple[Array, float]:
        """Return metres (H,W) float32, 0 where unknown, and the largest rounding error in metres."""
        stored = require_size(read_array_file(path, 1, self.files.array_name), size, path)
        scale = self.meaning.depth_scale
        if scale is None and stored.dtype.kind != "f":
            raise InputError(
                f"{path} holds whole numbers ({stored.dtype}): say how many make a metre with --depth_scale "
                "(1000 for millimetres, 256 for KITTI)."
            )
        # 32-bit whole numbers and float64 need more digits than float32 has before they are divided.
        metres = (stored.astype(np.float64) / (scale or 1.0)).astype(np.float32)
        known = np.isfinite(metres) & (metres > 0) & ~np.isin(stored, self.meaning.depth_unknown)
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
            relative_error = max(self.meaning.depth_error, 0.0 if error_m else FLOAT16_ERROR)
            return normals_from_depth(depth, rays, depth > 0, relative_error, error_m)[0], "from-depth"
        path = frame.targets["normals"]
        vectors = read_normals(path, size)
        known = (vectors != 0).any(dim=0, keepdim=True)
        normals = renormalize(convert_frame(vectors, self.meaning.normals_frame, "opengl"), known)
        away = (normals[2:] < 0 if rays is None else (normals * rays).sum(dim=0, keepdim=True) > 0)[known]
        if away.numel() and float(away.float().mean()) > MAX_SHARE_AWAY:
            raise InputError(
                f"{path}: {100 * float(away.float().mean()):.0f} % of the normals point away from the camera. "
                f"--normals_frame {self.meaning.normals_frame} does not seem to be their frame."
            )
        return (normals if rays is None else face_camera(normals, rays)), "native"

    def _check_options(self) -> None:
        """Refuse options that make no sense, and those that change nothing, for they were meant otherwise."""
        self.cameras.check()
        files, meaning, fit = self.files, self.meaning, self.fit
        scale, computed = meaning.depth_scale, self.normals == "from-depth"
        no_files, lacks_cameras = not files.has_normals, not self.cameras.known
        idle = "Leave the option out, or give what it needs."
        cameras = "needs cameras: give --intrinsics, --cameras or --fov_deg."
        for is_wrong, sentence in (
            (
                no_files and files.normals_pattern is not None,
                f"--normals_pattern names files of --normals DIR, which is not given. {idle}",
            ),
            (
                no_files and meaning.normals_frame != "opengl",
                f"--normals_frame is that of files in --normals DIR, which is not given. {idle}",
            ),
            (
                meaning.depth_error > 0 and (files.has_normals or files.normals == "none"),
                f"--depth_error smooths normals, which are not computed from depth here. {idle}",
            ),
            (
                fit.crop_at == "bottom" and not fit.crop,
                f"--crop_at says where --crop H W lies, which is not given. {idle}",
            ),
            (fit.size and fit.crop, "--size and --crop both say how large the samples are; give one of them."),
            (
                not self.modalities,
                "there is nothing to prepare beside images: give the folder of a modality, such as --depth.",
            ),
            (computed and files.depth is None, "--normals from-depth needs --depth."),
            (
                scale is not None and not (np.isfinite(scale) and scale > 0),
                f"--depth_scale must be a positive number of units per metre, not {scale}.",
            ),
            (
                not 0 < meaning.near < meaning.far <= LARGEST_DEPTH_M,
                f"--near and --far must be metres with 0 < near < far <= {LARGEST_DEPTH_M:.0f}, "
                f"not {meaning.near} and {meaning.far}.",
            ),
            (
                not 0 <= meaning.depth_error < 0.5,
                f"--depth_error is a share of depth such as 0.005, not {meaning.depth_error}.",
            ),
            (meaning.depth_kind == "ray-distance" and lacks_cameras, f"--depth_kind ray-distance {cameras}"),
            (computed and lacks_cameras, f"--normals from-depth {cameras}"),
        ):
            if is_wrong:
                raise InputError(sentence)
