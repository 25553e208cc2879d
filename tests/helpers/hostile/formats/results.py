"""What later commands read of earlier ones: scores, predictions, conditionings, notes of preparations; and anchors."""

import io
import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import save

from datamodules.preparation.sidecars import Sidecar, finish, write_sidecar
from datamodules.preparation.statistics import SplitStatistics
from datamodules.shards.manifest import DatasetManifest, ShardInfo
from geometry.files.npy_arrays import read_npy_file
from lightning_modules.comparison import tables
from lightning_modules.comparison.runs import differing_settings, read_run
from lightning_modules.inference.anchors import read_anchors
from lightning_modules.inference.photos import Photo
from lightning_modules.networks.conditioning import read_conditioning
from lightning_modules.networks.stable_diffusion_3.family import StableDiffusion3
from tests.helpers.hostile.formats import Format
from tests.helpers.hostile.mutations import JSON_FORMAT, TEXT_FORMAT

_SCORES = {"name": "nyuv2", "identity": "model-data", "scores": {"abs_rel": 0.1, "delta1": 0.9}, "problems": {}}
_SCORES |= {"num_images": 2, "num_images_published": 654}
_RESULTS = json.dumps({"headline": "abs_rel", "checkpoint": None, "seed": 1, "data_sets": {"nyuv2": _SCORES}}).encode()
_SAMPLES = b"key,abs_rel,delta1,left_out\na,0.1,0.9,\nb,0.1,0.8,\nc,,,too dark\n"
_TABLE = b"image,x,y,metres\na.png,3,4.5,1.25\na.png,30,20,2.5\n"
_IMAGES = b"# list\n1 1 0 0 0 0 0 1 1 a.png\n3 4 1 30 20 2 10 20 -1\n"
_POINTS = b"1 0 0 1 9 9 9 0.1\n2 1 1 2 9 9 9 0.1\n"
_SHARD = "train/x-train-000000.tar"
_FAMILY = StableDiffusion3(StableDiffusion3.pipelines[0])
_DENOISER = {"joint_attention_dim": 8, "pooled_projection_dim": 4}


def _compare(name: str, folder: Path, data: bytes) -> None:
    for run in ("first", "second"):
        (folder / run / "nyuv2").mkdir(parents=True)
        (folder / run / "results.json").write_bytes(_RESULTS)
        (folder / run / "nyuv2/samples.csv").write_bytes(_SAMPLES)
    (folder / "second" / name).write_bytes(data)
    runs = [read_run(str(folder / run)) for run in ("first", "second")]
    comparisons = tables.compare_runs(runs, tables.chosen_metrics(runs, []), 100, 0)
    rows, settings = tables.comparison_rows(comparisons, "first"), differing_settings(runs)
    tables.markdown(rows, settings, tables.remarks(runs, comparisons), {}).encode()
    tables.csv_text(comparisons, "first").encode()


def _prediction() -> bytes:
    file = io.BytesIO()
    np.save(file, np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8))
    return file.getvalue()


def _read_prediction(folder: Path, data: bytes) -> None:
    (folder / "a.npy").write_bytes(data)
    read_npy_file(folder / "a.npy")


def _read_table(folder: Path, data: bytes) -> None:
    (folder / "anchors.csv").write_bytes(data)
    _finite_anchors(folder / "anchors.csv")


def _read_colmap(name: str, folder: Path, data: bytes) -> None:
    for file, content in (("images.txt", _IMAGES), ("points3D.txt", _POINTS)):
        (folder / file).write_bytes(data if file == name else content)
    _finite_anchors(folder)


def _finite_anchors(path: Path) -> None:
    found = read_anchors(path, [Photo(Path("/photos/a.png"), Path(), "a")])
    for anchors in found.values():
        assert np.isfinite(anchors).all() and (anchors[:, 2] > 0).all()


def _conditioning() -> bytes:
    widths = _FAMILY.conditioning_widths(_DENOISER)
    tensors = {name: torch.linspace(0, 1, 2 * width).reshape(1, 2, width) for name, width in widths.items()}
    return save(tensors, {"pipeline": _FAMILY.pipeline})


def _read_conditioning(folder: Path, data: bytes) -> None:
    (folder / "conditioning.safetensors").write_bytes(data)
    for tensor in read_conditioning(folder / "conditioning.safetensors", _FAMILY, _DENOISER).values():
        assert tensor.isfinite().all()


def _sidecar() -> bytes:
    manifest = DatasetManifest("x", (24, 32), ("image", "depth"), {}, {"depth": (0.001, 65.0)}, plan_sha256="0" * 64)
    statistics = SplitStatistics(samples=1, num_bytes=1)
    sidecar = Sidecar(ShardInfo(_SHARD, 1, "0" * 64), 1, statistics, manifest, {"train": 1})
    with TemporaryDirectory() as folder:
        (Path(folder) / _SHARD).parent.mkdir()
        write_sidecar(Path(folder), sidecar)
        return (Path(folder) / _SHARD).with_suffix(".json").read_bytes()


def _finish(folder: Path, data: bytes) -> None:
    """Bring a preparation to its end whose shard has one byte."""
    (folder / _SHARD).parent.mkdir()
    (folder / _SHARD).write_bytes(b"x")
    (folder / _SHARD).with_suffix(".json").write_bytes(data)
    finish(folder)


FORMATS = [
    Format("results.json", lambda: [_RESULTS], partial(_compare, "results.json"), JSON_FORMAT),
    Format("samples.csv", lambda: [_SAMPLES], partial(_compare, "nyuv2/samples.csv"), TEXT_FORMAT),
    Format("saved prediction", lambda: [_prediction()], _read_prediction),
    Format("anchors table", lambda: [_TABLE], _read_table, TEXT_FORMAT),
    Format("COLMAP images", lambda: [_IMAGES], partial(_read_colmap, "images.txt"), TEXT_FORMAT),
    Format("COLMAP points", lambda: [_POINTS], partial(_read_colmap, "points3D.txt"), TEXT_FORMAT),
    Format("conditioning", lambda: [_conditioning()], _read_conditioning),
    Format("sidecar of a shard", lambda: [_sidecar()], _finish, JSON_FORMAT),
]
