"""Hypersim: which frames there are, and which split they belong to."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from datamodules.sources.hypersim_files import CONTENTS, HypersimFiles
from datamodules.sources.protocol import FrameList
from datamodules.sources.tables import read_csv
from geometry.command_line import Option
from geometry.errors import InputError
from geometry.files.reading import read_text_file

SPLIT_TABLE = "metadata_images_split_scene_v1.csv"
SPLITS = ("train", "val", "test")


class HypersimFrame(NamedTuple):
    """One image of one camera of one scene, for instance ("ai_001_001", "cam_00", 0)."""

    scene: str
    camera: str
    number: int

    def __str__(self) -> str:
        return f"{self.scene}/{self.camera}/{self.number:04d}"

    @property
    def key(self) -> str:
        """Id of the sample, for instance "ai_001_001-cam_00-0000"."""
        return f"{self.scene}-{self.camera}-{self.number:04d}"

    def name(self, content: str) -> str:
        """Return the path within the scene of one of the ``CONTENTS`` of a frame."""
        return f"images/scene_{self.camera}_{CONTENTS[content].folder}_hdf5/frame.{self.number:04d}.{content}.hdf5"

    def path(self, raw: Path, content: str) -> Path:
        """Return that file in the extracted scene."""
        return raw / self.scene / self.name(content)


@dataclass(frozen=True)
class HypersimSelection:
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
    splits: Annotated[tuple[str, ...], Option(choices=SPLITS)] = SPLITS
    missing: Literal["auto", "skip", "error"] = "auto"

    def split_table(self, raw: Path) -> Path | None:
        """Return the split table to use, or None."""
        return find_table(self.split_csv, raw, SPLIT_TABLE)

    def options(self, raw: Path) -> dict[str, Any]:
        """Return the choices for ``dataset.json``."""
        table = self.split_table(raw)
        return {"split_csv": table and table.name, "file_lists": [path.name for path in self.file_list]}


def find_table(given: Path | None, raw: Path, name: str) -> Path | None:
    """Return the table that was given, else the one in the raw folder or beside it, else None.

    Args:
        given: its path; a relative one that is not there is looked for in the raw folder and beside it, too.
        raw: folder of the scenes.
        name: name that it was published under.
    """
    path = Path(name) if given is None else given
    places = [] if given is None else [given]
    if not path.is_absolute():
        places += [raw / path, raw.absolute().parent / path]
    return next((place for place in places if place.is_file()), given)


def list_hypersim_frames(raw: Path, selection: HypersimSelection) -> FrameList:
    """Return the frames to prepare by split, in order of scene, camera and number.

    Frames are those whose colour file exists. Frames with geometry alone are counted and left out.

    Args:
        raw: folder that holds the scenes or their archives.
        selection: which of the frames.

    Returns:
        Frames by split, and notices about what was left out.

    Raises:
        InputError: the folder holds no frame, nothing remains of the selection, or a listed frame is missing.
    """
    if not raw.is_dir():
        raise InputError(f"{raw} is not a folder. Give the folder that holds Hypersim's scenes (ai_001_001, ...).")
    color, geometry = set(_scan(raw, "color")), set(_scan(raw, "depth_meters"))
    if not color:
        raise InputError(
            f"{raw} holds no Hypersim frame with colour: expected "
            f"{raw}/<scene>/images/scene_cam_XX_final_hdf5/frame.IIII.color.hdf5, or archives {raw}/ai_VVV_NNN.zip."
        )
    notices = []
    if geometry - color:
        example = min(geometry - color)
        notices.append(
            f"Left out: {len(geometry - color)} frame(s) with geometry but no colour file (such as {example})."
        )
    frames = color
    if selection.file_list:
        listed = {frame for path in selection.file_list for frame in read_file_list(path)}
        _report_missing(listed - color, "of the file list", selection.missing != "skip", notices)
        frames = listed & color
    table = selection.split_table(raw)
    if table is None:
        notices.append(f"Splits: no {SPLIT_TABLE} found or given by --split_csv, so every frame goes to train.")
        splits = {"train": sorted(frames)}
    else:
        splits = _split_by_table(frames, table, selection, notices)
    splits = {split: members for split, members in splits.items() if members and split in selection.splits}
    if not splits:
        raise InputError(f"none of the {len(color)} frames under {raw} is in the selection. " + " ".join(notices))
    return FrameList(splits, notices)


def _scan(raw: Path, content: str) -> Iterator[HypersimFrame]:
    for scene, name in HypersimFiles(raw).find(content):
        match = re.fullmatch(rf"images/scene_(cam_\w+)_[a-z]+_hdf5/frame\.(\d+)\.{content}\.hdf5", name)
        if match and re.fullmatch(r"[\w-]+", scene):
            yield HypersimFrame(scene, match[1], int(match[2]))


def read_file_list(path: Path) -> list[HypersimFrame]:
    """Return the frames that a list in Marigold's format names.

    A line starts with ``ai_001_001/rgb_cam_00_fr0000.png``; what follows the first space is not needed.

    Raises:
        InputError: the file cannot be read, or a line is of another form.
    """
    frames = []
    for number, line in enumerate(read_text_file(path).split("\n"), start=1):
        if not line.strip():
            continue
        match = re.match(r"(?:[\w-]+/)*([\w-]+)/rgb_(cam_\d+)_fr(\d+)\.\w+", line)
        if not match:
            raise InputError(
                f"{path}, line {number}: expected ai_001_001/rgb_cam_00_fr0000.png ..., found {line[:80]!r}."
            )
        frames.append(HypersimFrame(match[1], match[2], int(match[3])))
    return frames


def _split_by_table(
    frames: set[HypersimFrame], table: Path, selection: HypersimSelection, notices: list[str]
) -> dict[str, list[HypersimFrame]]:
    columns = ["scene_name", "camera_name", "frame_id", "included_in_public_release", "split_partition_name"]
    split_of: dict[HypersimFrame, str] = {}
    for row in read_csv(table, columns):
        public = row["included_in_public_release"].strip().lower() == "true"
        try:
            frame = HypersimFrame(row["scene_name"], row["camera_name"], int(row["frame_id"]))
        except ValueError as error:
            raise InputError(f"{table}: frame_id {row['frame_id']!r} is no number.") from error
        split_of[frame] = row["split_partition_name"] if public else ""
    splits: dict[str, list[HypersimFrame]] = {split: [] for split in SPLITS}
    left_out: Counter[str] = Counter()
    for frame in sorted(frames):
        split = split_of.get(frame)
        if split in splits:
            splits[split].append(frame)
        else:
            left_out["not in the split table" if split is None else "not in the public release"] += 1
    notices.append(f"Splits: from {table}.")
    notices.extend(f"Left out: {count} frame(s) {reason}." for reason, count in left_out.items())
    if not selection.file_list:
        absent = {frame for frame, split in split_of.items() if split in selection.splits} - frames
        _report_missing(absent, "of the split table", selection.missing == "error", notices)
    return splits


def _report_missing(missing: set[HypersimFrame], origin: str, is_error: bool, notices: list[str]) -> None:
    if not missing:
        return
    message = f"{len(missing)} frame(s) {origin} without a colour file on disk (such as {min(missing)})"
    if is_error:
        raise InputError(f"{message}. Download them, or pass --missing skip.")
    notices.append(f"Left out: {message}.")
