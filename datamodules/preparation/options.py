"""Options of the commands that prepare a data set."""

import argparse
import re
from typing import get_args

from datamodules.preparation.folder_options import add_folder_options, folder_dataset
from datamodules.preparation.run import default_workers
from datamodules.sources.hypersim import DEFAULT_MODALITIES, Hypersim, NormalsSource
from datamodules.sources.hypersim_frames import SPLITS, HypersimSelection
from datamodules.sources.hypersim_targets import readers
from datamodules.sources.virtual_kitti import CONDITIONS, PRESETS, SCENES, VirtualKitti
from geometry.files.paths import path_argument


def add_hypersim(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command ``hypersim``; the parsed options hold a function ``raw_dataset`` of them."""
    parser = commands.add_parser("hypersim", help="prepare Hypersim", description="Prepare Hypersim's HDF5 frames.")
    _add_input_and_output(parser, "hypersim")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        default=(480, 640),
        help="size of the samples (default: 480 640)",
    )
    parser.add_argument(
        "--modalities",
        nargs="+",
        choices=(*DEFAULT_MODALITIES, *readers()),
        default=DEFAULT_MODALITIES,
        metavar="NAME",
        help=f"what to prepare, of {', '.join((*DEFAULT_MODALITIES, *readers()))} "
        f"(default: {' '.join(DEFAULT_MODALITIES)})",
    )
    parser.add_argument(
        "--normals",
        choices=get_args(NormalsSource),
        default="auto",
        help="native: from normal_cam; from-depth: computed; auto: native where the file exists, else computed; "
        "none: leave normals out (default: %(default)s)",
    )
    parser.add_argument(
        "--split-csv",
        type=path_argument,
        help="metadata_images_split_scene_v1.csv, published in apple/ml-hypersim under evermotion_dataset/analysis "
        "(default: the one inside or beside RAW; without it, all frames are trained on)",
    )
    parser.add_argument(
        "--camera-csv",
        type=path_argument,
        help="metadata_camera_parameters.csv, published in apple/ml-hypersim under contrib/mikeroberts3000 (default: "
        "the one inside or beside RAW; scenes without an entry get the nominal camera)",
    )
    parser.add_argument(
        "--file-list",
        type=path_argument,
        nargs="+",
        default=(),
        help="prepare only the frames in these lists (Marigold's format)",
    )
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="splits to prepare (default: all)")
    parser.add_argument(
        "--missing",
        choices=("auto", "skip", "error"),
        default="auto",
        help="listed frames that are not on disk: skip counts them, error stops; auto stops for --file-list and skips "
        "for the split table (default: %(default)s)",
    )
    parser.set_defaults(raw_dataset=_hypersim)
    return parser


def _hypersim(options: argparse.Namespace) -> Hypersim:
    return Hypersim(
        options.raw,
        tuple(options.size),
        options.normals,
        HypersimSelection(options.split_csv, tuple(options.file_list), tuple(options.splits), options.missing),
        options.camera_csv,
        options.name,
        contents=tuple(options.modalities),
    )


def add_virtual_kitti(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command ``virtual_kitti``; as ``add_hypersim``."""
    parser = commands.add_parser(
        "virtual_kitti", help="prepare Virtual KITTI 2", description="Prepare Virtual KITTI 2 (release 2.0.3)."
    )
    _add_input_and_output(parser, "virtual_kitti")
    parser.add_argument(
        "--crop",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        default=(352, 1216),
        help="size of the samples, cut from the bottom, horizontally centred (default: 352 1216)",
    )
    parser.add_argument(
        "--normals",
        choices=("from-depth", "none"),
        default="from-depth",
        help="from-depth: compute normals; none: leave them out (default: %(default)s)",
    )
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="all",
        help="paper: morning, fog, rain, sunset, overcast of all scenes to train on; marigold: clone, 15-deg-left, "
        "15-deg-right, morning, overcast, sunset with Scene01 held out; all: every condition with Scene01 held out "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--val-scenes", nargs="*", choices=SCENES, metavar="SCENE", help="scenes held out (default: the preset's)"
    )
    parser.add_argument(
        "--conditions",
        nargs="+",
        choices=CONDITIONS,
        metavar="NAME",
        help="conditions to prepare: clone fog ... (default: the preset's)",
    )
    parser.add_argument(
        "--cameras", type=int, nargs="+", choices=(0, 1), default=(), metavar="N", help="cameras: 0 1 (default: all)"
    )
    parser.set_defaults(raw_dataset=_virtual_kitti)
    return parser


def _virtual_kitti(options: argparse.Namespace) -> VirtualKitti:
    preset = PRESETS[options.preset]
    return VirtualKitti(
        options.raw,
        tuple(options.crop),
        options.normals,
        preset.val_scenes if options.val_scenes is None else tuple(options.val_scenes),
        preset.conditions if options.conditions is None else tuple(options.conditions),
        tuple(options.cameras),
        options.name,
    )


def add_folder(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command ``folder``; as ``add_hypersim``."""
    parser = commands.add_parser(
        "folder", help="prepare your own images", description="Prepare a folder of images with any set of modalities."
    )
    add_folder_options(parser)
    _add_input_and_output(parser, "folder", has_raw=False)
    parser.set_defaults(raw_dataset=folder_dataset)
    return parser


def _add_input_and_output(parser: argparse.ArgumentParser, name: str, has_raw: bool = True) -> None:
    if has_raw:
        parser.add_argument("--raw", type=path_argument, required=True, help="folder of the data set as released")
    parser.add_argument("--out", type=path_argument, required=True, help="folder to write shards and dataset.json into")
    parser.add_argument("--name", default=name, help="name in logs and shard names (default: %(default)s)")
    parser.add_argument(
        "--samples-per-shard",
        type=int,
        default=256,
        metavar="N",
        help="samples in every shard; training reads a data set in as many parts at a time as it has shards, "
        "up to 48 (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=default_workers(),
        metavar="N",
        help="processes that read and encode frames; the result does not depend on it "
        "(default: one per core, %(default)s)",
    )
    parser.add_argument(
        "--part",
        type=_part,
        default=(1, 1),
        metavar="I/N",
        help="prepare only every N-th shard, from the I-th on, for instance 3/8 on the third of eight machines; parts "
        "may share --out, or be brought together by `merge`",
    )
    parser.add_argument(
        "--max-errors",
        type=int,
        default=0,
        metavar="N",
        help="broken samples to name and skip, per part; the next one stops the run (default: %(default)s)",
    )
    parser.add_argument(
        "--max-invalid-ratio",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="leave out samples with a larger share of unknown pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--image-format",
        choices=("jpg", "png"),
        default="jpg",
        help="jpg is small, png lossless (default: %(default)s)",
    )
    parser.add_argument(
        "--image-quality", type=int, default=95, metavar="Q", help="JPEG quality (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the order in which training frames go to shards (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace another data set in --out")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected I/N, for instance 3/8, not {text!r}")
    return int(match[1]), int(match[2])
