"""Hypersim: HDF5 frames to images, planar depth and normals.

Raw layout: ``RAW/<scene>/images/scene_<camera>_{final,geometry}_hdf5/frame.IIII.<what>.hdf5``, or the same inside
``RAW/<scene>.zip``.
Which frames to prepare, and in which split, is decided in ``datamodules.sources.hypersim_frames``.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.shards.files import file_sha256
from datamodules.sources.hypersim_files import CONTENTS, HypersimFiles
from datamodules.sources.hypersim_frames import HypersimFrame, HypersimSelection, find_table, list_hypersim_frames
from datamodules.sources.hypersim_targets import readers
from datamodules.sources.pinhole import cached_rays
from datamodules.sources.protocol import FrameList, PreparedSample
from datamodules.sources.registry import raw_dataset
from datamodules.sources.resizing import resize_image
from datamodules.sources.tables import read_csv
from datamodules.untrusted.hdf5_arrays import read_hdf5_array
from geometry.camera import (
    camera_from_hypersim,
    camera_from_intrinsics,
    depth_from_ray_distance,
    hypersim_nominal_intrinsics,
    resize_camera,
)
from geometry.command_line import Option
from geometry.errors import InputError
from geometry.modalities import modality_named
from geometry.normals import face_camera, normals_from_depth, renormalize

Array = np.ndarray
NormalsSource = Literal["auto", "native", "from-depth", "none"]

NEAR_PLANE_M = 1e-5
FAR_PLANE_M = 65.0
PIXEL_CENTER = 0.5
NO_ENTITY = -1
# Entries are slopes of rays: 1 is 45 degrees. NaN and infinity are not below it.
_LARGEST_CAMERA_ENTRY = 1e4
DEFAULT_MODALITIES = ("depth", "normals")
CAMERA_TABLE = "metadata_camera_parameters.csv"


@raw_dataset
@dataclass(frozen=True)
class Hypersim:
    """Prepare Hypersim's HDF5 frames.

    Attributes:
        raw: Folder of the data set as released, of scenes extracted or in their archives.
        size: Height and width of the samples.
        modalities: What to prepare.
        normals: native: from normal_cam; from-depth: computed; auto: native where the file exists, else computed;
            none: leave normals out.
        camera_csv: metadata_camera_parameters.csv, published in apple/ml-hypersim under contrib/mikeroberts3000. By
            default the one inside or beside the raw folder; scenes without an entry get the nominal camera.
        name: Name in logs and shard names.
        selection: Which frames.
    """

    raw: Path
    size: Annotated[tuple[int, int], Option(metavar=("H", "W"))] = (480, 640)
    modalities: Annotated[tuple[str, ...], Option(choices=(*DEFAULT_MODALITIES, *readers()))] = DEFAULT_MODALITIES
    normals: NormalsSource = "auto"
    camera_csv: Path | None = None
    name: str = "hypersim"
    selection: HypersimSelection = field(default_factory=HypersimSelection)

    source: ClassVar[str] = "hypersim"

    def __post_init__(self) -> None:
        """Bring what is to be prepared in the order in which it is stored.

        Raises:
            InputError: a modality is not known, or none is left.
        """
        known = (*DEFAULT_MODALITIES, *readers())
        unknown = [name for name in self.modalities if name not in known]
        of_these = [name for name in self.modalities if name != "normals" or self.normals != "none"]
        if unknown or not of_these:
            raise InputError(f"Hypersim holds {', '.join(known)}, not {', '.join(unknown) or 'nothing'}.")
        object.__setattr__(self, "modalities", tuple(name for name in known if name in of_these))

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the samples."""
        return self.size

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Near and far plane."""
        return {"depth": (NEAR_PLANE_M, FAR_PLANE_M)} if "depth" in self.modalities else {}

    def options(self) -> dict[str, Any]:
        """Return the choices that shape the samples."""
        table = self._camera_table()
        further = [name for name in self.modalities if name not in DEFAULT_MODALITIES]
        return {
            "source": self.source,
            "size": list(self.image_size),
            **({"modalities": list(self.modalities)} if further or "depth" not in self.modalities else {}),
            "normals": self.normals,
            "camera_csv": table and table.name,
            "camera_csv_sha256": file_sha256(table) if table and table.is_file() else None,
            **self.selection.options(self.raw),
        }

    def list_frames(self) -> FrameList:
        """Return the frames by split, with a notice about the cameras that will be used.

        Raises:
            InputError: no frame can be prepared, or a table cannot be read.
        """
        frames = list_hypersim_frames(self.raw, self.selection)
        scenes = {frame.scene for members in frames.splits.values() for frame in members}
        table = self._camera_table()
        known = read_camera_table(table) if table else {}
        nominal = sorted(scenes - set(known))
        if table:
            frames.notices.append(
                f"Cameras: {len(scenes) - len(nominal)} of {len(scenes)} scenes have theirs in {table}."
            )
        if nominal:
            frames.notices.append(
                f"Cameras: {len(nominal)} of {len(scenes)} scenes use the nominal 60 degree pinhole "
                f"({', '.join(nominal[:3])}{', ...' * (len(nominal) > 3)}). That is wrong for some scenes: "
                f"give --camera_csv {CAMERA_TABLE}."
            )
        return frames

    def load(self, frame: HypersimFrame) -> PreparedSample:
        """Return a frame in the project's own units and axes.

        Raises:
            InputError: one of the frame's files is missing, unreadable or of another size.
        """
        rgb = torch.from_numpy(self._read(frame, "color")).float().numpy()
        size = rgb.shape[:2]
        entity = self._read(frame, "render_entity_id", size)
        ray_distance = torch.from_numpy(self._read(frame, "depth_meters", size)).float()
        has_entity = entity != NO_ENTITY
        camera, camera_source = self._camera(frame.scene, size)
        rays = cached_rays(tuple(camera.flatten().tolist()), size, PIXEL_CENTER)

        image = resize_image(tone_map(rgb, has_entity), self.image_size)
        depth = depth_from_ray_distance(ray_distance[None], rays)
        valid = torch.from_numpy(has_entity)[None] & (depth >= NEAR_PLANE_M) & (depth <= FAR_PLANE_M)
        depth = torch.where(valid, depth, 0.0)
        info = {"source": str(frame), "camera": camera_source}
        found = {"depth": depth[0].numpy()}
        normals, info["normals"] = self._normals(frame, depth, valid, has_entity, rays)
        if normals is not None:
            found["normals"] = normals.numpy()
        for name in set(self.modalities) - set(found):
            reader = readers()[name]
            found[name] = reader.values(self._read(frame, reader.content, size), has_entity)
        return PreparedSample(
            image=np.rint(image * 255).astype(np.uint8),
            targets={name: modality_named(name)().resize(found[name], self.image_size) for name in self.modalities},
            camera_from_pixel=resize_camera(camera, size, self.image_size, PIXEL_CENTER).numpy(),
            pixel_center=PIXEL_CENTER,
            info=info,
        )

    def _read(self, frame: HypersimFrame, content: str, size: tuple[int, ...] | None = None) -> Array:
        """Return one of the frame's arrays, checked against the size of the frame's colour."""
        files, name = HypersimFiles(self.raw), frame.name(content)
        place = files.describe(frame.scene, name)
        kind = CONTENTS[content]
        try:
            array = read_hdf5_array(files.read(frame.scene, name), "dataset", kind.dtype, kind.shape)
        except FileNotFoundError as error:
            needed = ", ".join(dict.fromkeys(["color", "depth_meters", "render_entity_id", content]))
            raise InputError(f"{place} is missing. Every frame needs {needed}.") from error
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, OverflowError, MemoryError) as error:
            raise InputError(f"{place} cannot be read ({error}). Download or extract it again.") from error
        if size is not None and array.shape[:2] != tuple(size):
            height, width = array.shape[:2]
            raise InputError(f"{place} is {height}x{width} pixels, the frame's colour {size[0]}x{size[1]}.")
        return array

    def _camera_table(self) -> Path | None:
        return find_table(self.camera_csv, self.raw, CAMERA_TABLE)

    def _camera(self, scene: str, size: tuple[int, int]) -> tuple[Tensor, str]:
        """Return ``camera_from_pixel`` (3,3) float64 and whether it is the scene's own."""
        table = self._camera_table()
        m_cam_from_uv = read_camera_table(table).get(scene) if table else None
        if m_cam_from_uv is None:
            return camera_from_intrinsics(hypersim_nominal_intrinsics(*size)), "nominal"
        return camera_from_hypersim(torch.tensor(m_cam_from_uv, dtype=torch.float64), *size), "scene"

    def _normals(
        self, frame: HypersimFrame, depth: Tensor, valid: Tensor, has_entity: Array, rays: Tensor
    ) -> tuple[Tensor | None, str]:
        """Return normals (3,H,W), zero where unknown, and where they come from."""
        if "normals" not in self.modalities:
            return None, "none"
        exists = HypersimFiles(self.raw).exists(frame.scene, frame.name("normal_cam"))
        if self.normals == "native" or (self.normals == "auto" and exists):
            array = self._read(frame, "normal_cam", has_entity.shape)
            vectors = torch.from_numpy(array).permute(2, 0, 1).float().contiguous()
            squared_length = vectors.square().sum(dim=0, keepdim=True)
            # NaN is not larger than anything.
            mask = (squared_length > 0.25) & (squared_length < torch.inf) & torch.from_numpy(has_entity)
            return renormalize(face_camera(torch.where(mask, vectors, 0.0), rays), mask), "native"
        normals, _ = normals_from_depth(depth, rays, valid)
        return normals, "from-depth"


def tone_map(rgb: Array, has_entity: Array) -> Array:
    """Return linear HDR colour as an image for display, exposed as the authors of Hypersim expose theirs.

    Convention:
        The 90th percentile of brightness (0.3 R + 0.59 G + 0.11 B over pixels with geometry) becomes 0.8 after gamma
        1/2.2. A frame darker than 1e-4 becomes black; one without geometry is not scaled.

    Args:
        rgb: (H,W,3) float32, linear, not negative.
        has_entity: (H,W) bool, pixels with geometry.

    Returns:
        (H,W,3) float32 in [0, 1].

    Source:
        apple/ml-hypersim, ``scene_generate_images_tonemap.py``.
    """
    brightness = (rgb @ np.array([0.3, 0.59, 0.11], np.float32))[has_entity]
    brightness = brightness[np.isfinite(brightness)]
    scale = 1.0
    if brightness.size:
        bright = float(np.percentile(brightness, 90))
        scale = 0.8**2.2 / bright if bright >= 1e-4 else 0.0
    # Overflowed (infinite) colour is white, NaN is black. 65504 is the largest float16.
    image = torch.from_numpy(rgb).nan_to_num(nan=0.0, posinf=65504.0, neginf=0.0)
    return image.mul_(scale).clamp_(0, 1).pow_(1 / 2.2).numpy()


@lru_cache(maxsize=4)
def read_camera_table(path: Path) -> dict[str, list[list[float]]]:
    """Return ``M_cam_from_uv`` (3x3) by scene from ``metadata_camera_parameters.csv``.

    Raises:
        InputError: the file cannot be read, lacks a column or holds something that is no number or no camera.
    """
    columns = [[f"M_cam_from_uv_{row}{column}" for column in range(3)] for row in range(3)]
    rows = read_csv(path, ["scene_name", *(name for names in columns for name in names)])
    try:
        table = {row["scene_name"]: [[float(row[name]) for name in names] for names in columns] for row in rows}
    except ValueError as error:
        raise InputError(f"{path}: an entry of M_cam_from_uv is no number ({error}).") from error
    for scene, matrix in table.items():
        if not all(abs(entry) < _LARGEST_CAMERA_ENTRY for row in matrix for entry in row):
            raise InputError(f"{path}: M_cam_from_uv of {scene} is {matrix}, which is no camera.")
    return table
