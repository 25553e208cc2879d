"""What the cases are made of: small right data, files of wrong kinds, and wrong values of a type."""

import inspect
import os
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from PIL import Image

from datamodules import Benchmarks
from geometry.files.paths import folder_or_url, path_argument
from lightning_modules.evaluation.files import save_array
from synthetic_scenes import command as synthetic
from tests.helpers import runs
from tests.helpers.benchmark_archives import write_depth_archive
from tests.helpers.rendered_layouts import write_irs, write_tartanair, write_unreal_stereo, write_urbansyn

NUMBERS = ("-1", "0", "1000000000000")
FRACTIONS = ("nan", "inf", "-1.5", "0", "1e300")

#: Data sets with a command of ``prepare`` and a folder of the material, that are resized to ``--size``.
RENDERED = ("irs", "tartanair", "unreal_stereo_4k", "urbansyn")


class Material:
    """Small data, a run of three steps, raw data sets, and files of every wrong kind.

    Args:
        folder: where to put them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = runs.prepare(folder / "data", max_steps=3)
        assert runs.fit(folder / "runs", self.config) == [0], runs.log_of(folder / "runs")
        self.run = folder / "runs/tiny/version_0"
        self.photo = folder / "photo.png"
        Image.new("RGB", (40, 32), (90, 60, 30)).save(self.photo)
        for layout in ("hypersim", "virtual_kitti"):
            words = [layout, "--out", str(folder / layout), "--frames", "4", "--size", "48", "160", "--workers", "1"]
            assert synthetic.main(words) == 0
        for number in range(2):
            write_tartanair(folder / "tartanair", 1, number=number)
            write_urbansyn(folder / "urbansyn", number + 1)
            write_irs(folder / "irs", number=number + 1)
            write_unreal_stereo(folder / "unreal_stereo_4k", number=number)
        self._write_folder_dataset()
        self._write_benchmarks()
        self._write_wrong_files()

    def _write_folder_dataset(self) -> None:
        for number in range(3):
            for kind in ("rgb", "depth"):
                (self.folder / "own" / kind).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 48), (9, 99, 30 * number)).save(self.folder / f"own/rgb/{number}.png")
            Image.new("I;16", (64, 48), 1500 + number).save(self.folder / f"own/depth/{number}.png")

    def _write_benchmarks(self) -> None:
        for name in ("nyuv2", "kitti"):
            write_depth_archive(self.folder / "benchmarks", name, 2)
        self.predictions = self.folder / "predictions"
        data = Benchmarks(str(self.folder / "benchmarks"), num_workers=0)
        data.setup("test")
        for loader in data.test_dataloader():
            for batch in loader:
                for key in batch.key:
                    ramp = np.linspace(0.1, 1, 48 * 64, dtype=np.float32).reshape(48, 64)
                    save_array(self.predictions / batch.dataset.name / f"{key}.npy", ramp)

    def _write_wrong_files(self) -> None:
        self.wrong = self.folder / "wrong"
        self.wrong.mkdir()
        (self.wrong / "empty").touch()
        (self.wrong / "noise").write_bytes(bytes(range(256)) * 9)
        (self.wrong / "text").write_text("this is, no\ntable: [of, any\nkind\n")
        checkpoint = (self.run / "checkpoints/last.ckpt").read_bytes()
        (self.wrong / "cut.ckpt").write_bytes(checkpoint[: len(checkpoint) // 2])
        (self.wrong / "folder").mkdir()
        os.mkfifo(self.wrong / "pipe")

    def paths(self) -> list[str]:
        """Return paths that are wrong wherever a file or folder is read."""
        names = ("nothing", "empty", "noise", "text", "cut.ckpt", "folder", "pipe")
        return [*(str(self.wrong / name) for name in names), "", "~nobody-here/x", "/dev/zero", "x" * 300]


def wrong_values(hint: Any, name: str, material: Material) -> list[str]:  # noqa: ANN401 - any type hint
    """Return values of an option's type, or near to it, that are likely to be wrong.

    Args:
        hint: the type.
        name: the option, for its kind of text.
        material: has paths.
    """
    return [*_wrong_values(hint, name, material), "null"]


def _wrong_values(hint: Any, name: str, material: Material) -> list[str]:  # noqa: ANN401
    if get_origin(hint) in (typing.Union, types.UnionType):
        return [value for part in get_args(hint) for value in _wrong_values(part, name, material)]
    if hint is bool or hint is type(None):
        return []
    if hint is int:
        return list(NUMBERS)
    if hint is float:
        return list(FRACTIONS)
    if get_origin(hint) is typing.Literal:
        return ["wrong"]
    if hint in (str, Path, path_argument, folder_or_url):
        return material.paths() if _is_path(name) or hint is not str else ["", "wrong", "\x1b[2J", "../x"]
    if get_origin(hint) in (list, tuple, dict) or hint in (list, dict):
        return ["[]", "{}", "[1]", '["wrong"]', "{wrong: 1}"]
    return ["builtins.int", "no.Class", "{}", "[]", "{class_path: 3}", "{init_args: {x: 1}}"]


def _is_path(name: str) -> bool:
    return name.rpartition(".")[2] in (
        "root",
        "base",
        "cache_dir",
        "init_from",
        "path",
        "folder",
        "output",
        "ckpt_path",
    )


def options_of(owner: type, prefix: str, material: Material) -> Iterator[tuple[str, str]]:
    """Yield an option and a wrong value for every argument of a class.

    Args:
        owner: the class.
        prefix: where its options stand.
        material: has paths.
    """
    hints = get_type_hints(owner.__init__)
    for name in inspect.signature(owner.__init__).parameters:
        for value in wrong_values(hints.get(name, str), f"{prefix}.{name}", material) if name != "self" else ():
            yield f"{prefix}.{name}", value
