"""Hypersim as a command of ``prepare``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from datamodules.sources.hypersim import DEFAULT_MODALITIES, Hypersim, NormalsSource
from datamodules.sources.hypersim_frames import SPLITS, HypersimSelection
from datamodules.sources.hypersim_targets import readers
from datamodules.sources.registry import raw_dataset
from geometry.command_line import Option

Modalities = Annotated[tuple[str, ...], Option(choices=(*DEFAULT_MODALITIES, *readers()))]
Splits = Annotated[tuple[str, ...], Option(choices=SPLITS)]


@dataclass(frozen=True)
class FrameOptions:
    """Which frames.

    Attributes:
        split_csv: metadata_images_split_scene_v1.csv, published in apple/ml-hypersim under evermotion_dataset/analysis.
            By default the one inside or beside the raw folder; without it, all frames are trained on.
        file_list: Prepare only the frames in these lists (Marigold's format).
        splits: Splits to prepare.
        missing: Listed frames that are not on disk: skip counts them, error stops; auto stops for file lists and skips
            for the split table.
    """

    split_csv: Path | None = None
    file_list: tuple[Path, ...] = ()
    splits: Splits = SPLITS
    missing: Literal["auto", "skip", "error"] = "auto"


@raw_dataset
def hypersim(
    raw: Path,
    frames: FrameOptions,
    size: Annotated[tuple[int, int], Option(metavar=("H", "W"))] = (480, 640),
    modalities: Modalities = DEFAULT_MODALITIES,
    normals: NormalsSource = "auto",
    camera_csv: Path | None = None,
    name: str = "hypersim",
) -> Hypersim:
    """Prepare Hypersim's HDF5 frames.

    Args:
        raw: Folder of the data set as released.
        frames: Which frames.
        size: Height and width of the samples.
        modalities: What to prepare.
        normals: native: from normal_cam; from-depth: computed; auto: native where the file exists, else computed;
            none: leave normals out.
        camera_csv: metadata_camera_parameters.csv, published in apple/ml-hypersim under contrib/mikeroberts3000. By
            default the one inside or beside the raw folder; scenes without an entry get the nominal camera.
        name: Name in logs and shard names.
    """
    selection = HypersimSelection(frames.split_csv, frames.file_list, frames.splits, frames.missing)
    return Hypersim(raw, size, normals, selection, camera_csv, name, contents=modalities)
