"""Archives of benchmarks, extracted benchmarks, and lists of their files."""

import io
import tarfile
import zipfile
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from datamodules.benchmarks import import_all
from datamodules.benchmarks.file_list import listed_samples
from datamodules.benchmarks.files import BenchmarkFiles, open_files
from datamodules.benchmarks.loader import BenchmarkLoader, Unscored
from datamodules.benchmarks.protocol import Benchmark, benchmarks_of
from datamodules.streaming.loading import Workers
from tests.helpers.benchmark_archives import depth_members
from tests.helpers.hostile.formats import Format, assert_finite
from tests.helpers.hostile.formats.shards import _lying_tar, lying_npy
from tests.helpers.hostile.mutations import TEXT_FORMAT

_SIZE = (24, 32)


@cache
def _members(name: str) -> dict[str, bytes]:
    return depth_members(name, 1, np.random.default_rng(0), size=None if name == "eth3d" else _SIZE)


def _tar(name: str) -> list[bytes]:
    return [_tar_of(name, kind) for kind in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT)]


@cache
def _tar_of(name: str, kind: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for path, content in _members(name).items():
            info = tarfile.TarInfo(f"./{path}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


@cache
def _zip(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in _members(name).items():
            archive.writestr(path, content)
    return file.getvalue()


def _read_archive(name: str, suffix: str, folder: Path, data: bytes) -> None:
    (folder / f"a{suffix}").write_bytes(data)
    _score(name, open_files(folder / f"a{suffix}"))


def _score(name: str, files: BenchmarkFiles) -> None:
    """Load all samples as ``test`` does."""
    benchmark = _benchmark(name)
    loader = BenchmarkLoader(benchmark, files, benchmark.entries(files), 64, Workers())
    for entry in loader.entries[:4]:
        batch = loader.load(entry)
        if isinstance(batch, Unscored):
            assert len(batch.reason) < 2000, "a reason is told at endless length"
        else:
            (target,) = batch.targets.values()
            assert target.mask is not None
            assert_finite(batch.image.numpy(), target.values[target.mask.expand_as(target.values)].numpy())


@cache
def _benchmark(name: str) -> Benchmark:
    import_all()
    return benchmarks_of("depth")[name]


def _read_member(name: str, ending: str, folder: Path, data: bytes) -> None:
    """Read an extracted benchmark, one of whose files has some bytes."""
    for path, content in _members(name).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data if path.endswith(ending) else content)
    _score(name, open_files(folder))


def _member(name: str, ending: str) -> list[bytes]:
    return [content for path, content in _members(name).items() if path.endswith(ending)]


def _read_list(folder: Path, data: bytes) -> None:
    (folder / "list.txt").write_bytes(data)
    with TemporaryDirectory(dir=folder) as place:
        listed_samples(folder / "list.txt", BenchmarkFiles(Path(place), dict.fromkeys(_members("nyuv2"), (-1, -1))), 2)


def _list() -> list[bytes]:
    image, *truth = _members("nyuv2")
    return [f"{image} {truth[0]} {truth[1]}\n".encode() * 3]


FORMATS = [
    Format("benchmark .tar", partial(_tar, "nyuv2"), partial(_read_archive, "nyuv2", ".tar"), attacks=(_lying_tar,)),
    Format("benchmark .zip", lambda: [_zip("diode")], partial(_read_archive, "diode", ".zip")),
    Format(
        "benchmark npy",
        partial(_member, "diode", "_depth.npy"),
        partial(_read_member, "diode", "_depth.npy"),
        attacks=(lying_npy,),
    ),
    Format(
        "benchmark png", partial(_member, "nyuv2", "filled_0001.png"), partial(_read_member, "nyuv2", "filled_0001.png")
    ),
    Format(
        "benchmark raw floats",
        partial(_member, "eth3d", "ground_truth_depth/dslr_images/DSC_0001.JPG"),
        partial(_read_member, "eth3d", "ground_truth_depth/dslr_images/DSC_0001.JPG"),
    ),
    Format("benchmark list", _list, _read_list, TEXT_FORMAT),
]
