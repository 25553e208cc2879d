"""What a prepared data set consists of: shards, their entries, ``dataset.json``."""

import io
import json
import random
import tarfile
import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np
from numcodecs import blosc

from datamodules.preparation.checking import check_dataset
from datamodules.shards.codecs import encode_array, encode_image
from datamodules.shards.manifest import Dataset, read_dataset
from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.streams import ShardReader
from tests.helpers.hostile.formats import Format, assert_finite
from tests.helpers.hostile.mutations import JSON_FORMAT
from tests.helpers.planes import encode_plane, make_dataset

SIZE = (12, 16)
NUM_SAMPLES = 3
_SHARD = "train/planes-train-000000.tar"
_MANIFEST = "dataset.json"


@cache
def _dataset() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="attack-dataset-"))
    make_dataset(folder, shards={"train": [NUM_SAMPLES]}, size=SIZE)
    return folder


def _whole_shards() -> list[bytes]:
    return [(_dataset() / _SHARD).read_bytes()]


def _read_shard(folder: Path, data: bytes) -> None:
    """Read all samples as training does, and check the data set as ``prepare check`` does."""
    (folder / "train").mkdir()
    (folder / _MANIFEST).write_bytes((_dataset() / _MANIFEST).read_bytes())
    (folder / _SHARD).write_bytes(data)
    dataset = read_dataset(folder)
    _batch(dataset)
    for check in check_dataset(folder, progress=False):
        assert all(len(problem) < 2000 for problem in check.problems), "a problem is told at endless length"


def _batch(dataset: Dataset) -> list[str]:
    """Return the problems of a batch, after asserting that it makes sense."""
    assembler = BatchAssembler("planes", dataset.manifest, ("depth", "normals"))
    reader, shard = ShardReader(dataset, assembler.roles), dataset.manifest.splits["train"][0]
    samples = [reader.read(0, shard, index) for index in range(NUM_SAMPLES)]
    packed, problems = assembler.assemble(samples, [False, True, False])
    batch = packed.expand()
    assert_finite(batch.image.numpy(), *(target.values.numpy() for target in batch.targets.values()))
    assert all(len(problem) < 2000 for problem in problems), "a problem is told at endless length"
    return problems


def _tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _read_entry(name: str, folder: Path, data: bytes) -> None:
    """Read a shard whose second sample has some bytes as one of its entries."""
    members: dict[str, bytes] = {}
    for number in range(NUM_SAMPLES):
        entries = dict(encode_plane(f"s{number}", SIZE).entries)
        if number == 1:
            role = name.split(".")[0]
            entries = {key: value for key, value in entries.items() if key.split(".")[0] != role} | {name: data}
        members |= {f"s{number}.{key}": value for key, value in entries.items()}
    _read_shard(folder, _tar(members))


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def lying_npy(chance: random.Random) -> bytes:
    """Return a .npy file whose header claims what is not there, or is a program."""
    shape = chance.choice(
        ("(10**20,)", "(99999999999,)", "(-1, 16)", "(True, False)", "(12, 16.0)", "((1,),)", "(1,)*3000", "()", "(0,)")
    )
    kind = chance.choice(("'<f2'", "'|O'", "'<f8'", "'|V99999999'", "[('a', '<f4')]", "'<M8[s]'", "'<c16'", "'>f4'"))
    header = chance.choice(
        (
            f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}",
            f"{{'descr': {kind}, 'fortran_order': {shape}, 'shape': {shape}}}",
            "__import__('os').system('true')",
            "(" * 2000 + ")" * 2000,
            "{" * 300,
            "'" + "\\" * 1001,
            "-" * 4000 + "1",
        )
    ).encode()
    version = chance.choice((1, 1, 2, 3, 9))
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes((version, 0)) + length + header + bytes(chance.choice((0, 384, 4096)))


def _blosc_bomb(chance: random.Random) -> bytes:
    codec = blosc.Blosc(cname=chance.choice(("zstd", "lz4", "zlib")), clevel=9, shuffle=blosc.SHUFFLE)
    data = bytearray(codec.encode(bytes(chance.choice((1 << 20, 64 << 20)))))
    if chance.random() < 0.5:
        data[4:8] = chance.choice((1 << 31, (1 << 32) - 1, 384 << 20)).to_bytes(4, "little")
    return bytes(data)


def _packed_lying_npy(chance: random.Random) -> bytes:
    return bytes(blosc.Blosc(cname="zstd").encode(lying_npy(chance)))


def _lying_tar(chance: random.Random) -> bytes:
    """Return a tar file whose headers claim odd sizes, or follow each other without end."""
    base = io.BytesIO()
    odd_size = chance.choice((-512, -(1 << 40), 1 << 62, 1 << 80, 0))
    with tarfile.open(fileobj=base, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(chance.choice(("s0.json", "s0.image.png", "./s0.json", "/etc/x.json", "a" * 5000)))
        info.type = chance.choice(
            (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.LNKTYPE)
        )
        info.linkname = "/etc/passwd"
        info.pax_headers = chance.choice(
            ({}, {"size": str(odd_size)}, {"path": "\x1b[2J.json"}, {"GNU.sparse.major": "1"}, {"mtime": "9" * 500})
        )
        for _ in range(chance.choice((1, 3, 300))):
            archive.addfile(info)
    data = bytearray(base.getvalue())
    if chance.random() < 0.5:
        data[124:136] = b"\xff" * 4 + (odd_size & ((1 << 64) - 1)).to_bytes(8)
        data[148:156] = b"%06o\0 " % (256 + sum(data[:148]) + sum(data[156:512]))
    if chance.random() < 0.3:
        data = data[:512] * 4000
    return bytes(data) + _whole_shards()[0]


def _read_manifest(folder: Path, data: bytes) -> None:
    (folder / _MANIFEST).write_bytes(data)
    manifest = read_dataset(folder).manifest
    assert_finite(np.array(list(manifest.ranges.values())))
    assert all(manifest.num_samples(split) >= 0 for split in manifest.splits)


def _whole_manifests() -> list[bytes]:
    whole = (_dataset() / _MANIFEST).read_bytes()
    long = json.loads(whole)
    long["splits"]["train"] = long["splits"]["train"] * 500
    coded = {**json.loads(whole), "format_version": 3, "ranges": {}, "codings": {"normals": "octahedral"}}
    return [whole, whole, json.dumps(long).encode(), json.dumps(coded).encode()]


@cache
def _entry(name: str) -> bytes:
    entries = encode_plane("s", SIZE).entries
    depth = np.full(SIZE, 2, np.float16)
    others = {
        "image.jpg": encode_image(np.full((*SIZE, 3), 99, np.uint8)),
        "depth.npy": _npy(depth),
        "normals.octahedral": encode_array(np.full((2, *SIZE), 4095, np.int16), 2),
        "normals.npy": _npy(np.stack([depth * 0, depth * 0, depth / 2])),
    }
    return others[name] if name in others else entries[name]


def _huge_image(suffix: str, chance: random.Random) -> bytes:
    size = chance.choice(((8000, 8000), (1, 60000), (3000, 3000)))
    return encode_image(np.zeros((*size, 3), np.uint8), suffix)


def _codes(chance: random.Random) -> np.ndarray:
    """Return numbers that are no codes, or too many."""
    shape = chance.choice(((2, *SIZE), (3, *SIZE), (2, 4, 4), (384,), (0,), (2, 4000, 4000)))
    return np.full(shape, chance.choice((-32768, -1, 8191, 32767)), chance.choice((np.int16, np.float16, np.int64)))


_OWN = {
    "json": (),
    "depth.blosc": (
        _blosc_bomb,
        _packed_lying_npy,
        lambda chance: bytes(encode_array(np.full(SIZE, np.nan, np.float16))),
    ),
    "normals.octahedral": (
        _blosc_bomb,
        _packed_lying_npy,
        lambda chance: bytes(encode_array(_codes(chance), 2)),
    ),
    "depth.npy": (lying_npy,),
    "normals.npy": (lying_npy,),
    "image.png": (partial(_huge_image, "png"),),
    "image.jpg": (partial(_huge_image, "jpg"),),
}

FORMATS = [
    Format("shard", _whole_shards, _read_shard, attacks=(_lying_tar,)),
    Format("dataset.json", _whole_manifests, _read_manifest, JSON_FORMAT),
    *(
        Format(
            f"entry {name}",
            partial(lambda name: [_entry(name)], name),
            partial(_read_entry, name),
            *((JSON_FORMAT,) if name == "json" else ()),
            attacks=attacks,
        )
        for name, attacks in _OWN.items()
    ),
]
