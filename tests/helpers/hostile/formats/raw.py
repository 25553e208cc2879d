"""Raw data sets: arrays and cameras of one's own, Hypersim's HDF5 files, archives and tables, Virtual KITTI's text."""

import io
import random
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import cv2
import h5py
import numpy as np
import OpenEXR

from datamodules.sources.array_files import read_array_file
from datamodules.sources.folder_cameras import FolderCameras
from datamodules.sources.hypersim import Hypersim, read_camera_table
from datamodules.sources.hypersim_frames import HypersimFrame, HypersimSelection, read_file_list
from datamodules.sources.virtual_kitti import read_intrinsics
from tests.helpers.hostile.formats import Attack, Format, assert_finite
from tests.helpers.hostile.formats.shards import lying_npy
from tests.helpers.hostile.mutations import JSON_FORMAT, TEXT_FORMAT
from tests.helpers.planes import write_camera_table, write_hypersim_frame, write_virtual_kitti_frame

SIZE = (24, 32)
_FRAME = HypersimFrame("ai_001_001", "cam_00", 0)
_DEPTH = np.linspace(1, 9, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
_NORMALS = np.broadcast_to(np.array([0, 0, 1], np.float32), (*SIZE, 3))


def _read_array(name: str, channels: int, folder: Path, data: bytes) -> None:
    (folder / name).write_bytes(data)
    array = read_array_file(folder / name, channels)
    assert array.ndim == (2 if channels == 1 else 3), f"accepted with shape {array.shape}"


def _arrays(suffix: str) -> list[bytes]:
    return [_array(suffix, channels) for channels in (1, 3)]


@cache
def _array(suffix: str, channels: int) -> bytes:
    array = _DEPTH if channels == 1 else np.ascontiguousarray(_NORMALS)
    file = io.BytesIO()
    if suffix == ".npy":
        np.save(file, array)
    elif suffix == ".npz":
        np.savez_compressed(file, depth=array)
    elif suffix == ".pfm":
        kind = b"Pf" if channels == 1 else b"PF"
        file.write(b"%b\n%d %d\n-1.0\n" % (kind, SIZE[1], SIZE[0]) + array[::-1].astype("<f4").tobytes())
    elif suffix == ".png":
        file.write(cv2.imencode(".png", (array * 1000).astype(np.uint16))[1].tobytes())
    else:
        file.write(_exr(array))
    return file.getvalue()


def _exr(array: np.ndarray, compression: int = OpenEXR.ZIP_COMPRESSION) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        header = {"compression": compression, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"Z" if array.ndim == 2 else "RGB": array}).write(f"{folder}/a.exr")
        return Path(folder, "a.exr").read_bytes()


def _other_exr(chance: random.Random) -> bytes:
    kinds = ("NO_COMPRESSION", "RLE_COMPRESSION", "ZIPS_COMPRESSION", "PIZ_COMPRESSION", "PXR24_COMPRESSION")
    data = bytearray(_exr(_DEPTH, getattr(OpenEXR, chance.choice((*kinds, "DWAA_COMPRESSION", "B44_COMPRESSION")))))
    for _ in range(chance.choice((0, 1, 3))):
        data[chance.randrange(300, len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _lying_pfm(chance: random.Random) -> bytes:
    numbers = chance.choice(
        (b"-5 -5", b"99999999 99999999", b"9" * 60 + b" 1", b"1e3 2", b"0 0", b"4 4", "٣ ٣".encode())
    )
    scale = chance.choice((b"nan", b"-inf", b"0", b"-1e400", b"-1.0"))
    return chance.choice((b"Pf", b"PF")) + b"\n" + numbers + b"\n" + scale + b"\n" + bytes(64)


def _npz_bomb(chance: random.Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(
        file, "w", chance.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    ) as archive:
        content = lying_npy(chance) if chance.random() < 0.5 else _array(".npy", 1) + bytes(60 << 20)
        archive.writestr("depth.npy", content)
    return file.getvalue()


@cache
def _hypersim() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="attack-hypersim-"))
    write_hypersim_frame(folder, size=SIZE)
    return folder


def _hdf5_of(content: str) -> list[bytes]:
    array = h5py.File(_FRAME.path(_hypersim(), content))["dataset"][()]
    file = io.BytesIO()
    with h5py.File(file, "w") as packed:
        packed.create_dataset("dataset", data=array, chunks=True, compression="gzip", shuffle=True, fletcher32=True)
    return [_FRAME.path(_hypersim(), content).read_bytes(), file.getvalue()]


def _odd_hdf5(content: str, chance: random.Random) -> bytes:
    """Return an HDF5 file whose array lies elsewhere, is huge, or of another kind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.hdf5")
        with h5py.File(path, "w", libver=chance.choice(("earliest", "latest"))) as file:
            chance.choice((_external, _virtual, _links, _claims, _kinds))(chance, file)
        return path.read_bytes()


def _external(chance: random.Random, file: h5py.File) -> None:
    file.create_dataset("dataset", SIZE, np.float16, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _virtual(chance: random.Random, file: h5py.File) -> None:
    layout = h5py.VirtualLayout(SIZE, np.float16)
    layout[:] = h5py.VirtualSource(chance.choice((".", "/etc/passwd", "x.hdf5")), "dataset", SIZE)
    file.create_virtual_dataset("dataset", layout)


def _links(chance: random.Random, file: h5py.File) -> None:
    file["dataset"] = chance.choice((h5py.ExternalLink("/etc/passwd", "/"), h5py.SoftLink("/dataset")))


def _claims(chance: random.Random, file: h5py.File) -> None:
    shape = chance.choice(((1 << 20, 1 << 20), (30_000, 30_000), (0, 5), (6000, 6000)))
    file.create_dataset("dataset", shape, np.float16, chunks=(1, 1 << 10) if min(shape) else None)


def _kinds(chance: random.Random, file: h5py.File) -> None:
    kind = chance.choice((h5py.string_dtype(), h5py.ref_dtype, "S10", np.complex64, np.int64, np.float64, np.bool_))
    file.create_dataset("dataset", chance.choice((SIZE, (*SIZE, 3), ())), kind)


def _read_hdf5(content: str, folder: Path, data: bytes) -> None:
    for kind in ("color", "depth_meters", "render_entity_id", "normal_cam"):
        path = _FRAME.path(folder, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if kind == content else _FRAME.path(_hypersim(), kind).read_bytes())
    sample = Hypersim(folder, SIZE).load(_FRAME)
    assert_finite(sample.targets["depth"], sample.image, sample.targets["normals"])


def _whole_zips() -> list[bytes]:
    return [_zip(kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]


@cache
def _zip(kind: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for path in sorted(_hypersim().rglob("*.hdf5")):
            archive.write(path, path.relative_to(_hypersim()).as_posix())
    return file.getvalue()


def _zip_bomb(chance: random.Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(_hypersim().rglob("*.hdf5")):
            content = bytes(chance.choice((1 << 20, 40 << 20))) if "depth" in path.name else path.read_bytes()
            archive.writestr(path.relative_to(_hypersim()).as_posix(), content)
    data = file.getvalue()
    if chance.random() < 0.5:
        size = (40 << 20).to_bytes(4, "little")
        data = data.replace(size, chance.choice((1, 1 << 31, (1 << 32) - 1)).to_bytes(4, "little"))
    return data


def _read_zip(folder: Path, data: bytes) -> None:
    (folder / "ai_001_001.zip").write_bytes(data)
    hypersim = Hypersim(folder, SIZE)
    frames = hypersim.list_frames()
    for frame in [frame for members in frames.splits.values() for frame in members][:2]:
        sample = hypersim.load(frame)
        assert_finite(sample.targets["depth"], sample.image)


def _read_split_table(folder: Path, data: bytes) -> None:
    (folder / "split.csv").write_bytes(data)
    Hypersim(_hypersim(), SIZE, selection=HypersimSelection(folder / "split.csv")).list_frames()


def _text(name: str, read: Callable[[Path], object], folder: Path, data: bytes) -> None:
    (folder / name).write_bytes(data)
    read(folder / name)


def _camera_table_bytes() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [write_camera_table(Path(folder, "t.csv"), "ai_001_001", np.eye(3)).read_bytes()]


def _finite_cameras(path: Path) -> None:
    for matrix in read_camera_table(path).values():
        assert_finite(np.asarray(matrix))


def _camera_of(path: Path) -> None:
    matrix, _ = FolderCameras(cameras=path).matrix("a/b", SIZE)
    assert_finite(matrix.numpy())


def _kitti_cameras() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write_virtual_kitti_frame(Path(folder))
        return [next(Path(folder).rglob("intrinsic.txt")).read_bytes()]


def _constant(*wholes: bytes) -> Callable[[], Sequence[bytes]]:
    return lambda: wholes


def _csv_attack(chance: random.Random) -> bytes:
    start = b"image,fx,fy,cx,cy\n"
    return start + chance.choice(
        (
            b'"' + b"a" * 200_000,
            b"a/b,1e400,1,1,1\n",
            b"a/b,nan,inf,0,0\n",
            b"a/b,,,,\n",
            b"\x00\n",
            b"a/b,5,5,5,5,5,5\n",
        )
    )


_SUFFIX_ATTACKS: dict[str, tuple[Attack, ...]] = {
    ".npy": (lying_npy,),
    ".npz": (_npz_bomb,),
    ".pfm": (_lying_pfm,),
    ".exr": (_other_exr, _other_exr),
    ".png": (),
}
_FRAME_LIST = b"ai_001_001/rgb_cam_00_fr0000.png ai_001_001/depth_plane_cam_00_fr0000.png\n" * 3
_SPLIT_TABLE = (
    b"scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name\n"
    b"ai_001_001,cam_00,0,True,,train\n"
)

FORMATS = [
    *(
        Format(
            f"depth {suffix}",
            partial(lambda suffix: [_array(suffix, 1)], suffix),
            partial(_read_array, f"a{suffix}", 1),
            attacks=attacks,
        )
        for suffix, attacks in _SUFFIX_ATTACKS.items()
    ),
    Format("normals .exr", lambda: [_array(".exr", 3)], partial(_read_array, "a.exr", 3)),
    *(
        Format(
            f"hdf5 {content}",
            partial(_hdf5_of, content),
            partial(_read_hdf5, content),
            attacks=(partial(_odd_hdf5, content),),
        )
        for content in ("depth_meters", "color", "render_entity_id")
    ),
    Format("hypersim zip", _whole_zips, _read_zip, attacks=(_zip_bomb,)),
    Format("hypersim camera table", _camera_table_bytes, partial(_text, "t.csv", _finite_cameras), TEXT_FORMAT),
    Format(
        "camera .txt",
        _constant(b"500 500 16 12\n", b"500 0 16\n0 500 12\n0 0 1\n"),
        partial(_text, "c.txt", _camera_of),
        TEXT_FORMAT,
    ),
    Format(
        "camera .json",
        _constant(b'{"fx": 500, "fy": 500, "cx": 16, "cy": 12}', b'{"K": [[500,0,16],[0,500,12],[0,0,1]]}'),
        partial(_text, "c.json", _camera_of),
        JSON_FORMAT,
    ),
    Format(
        "camera .csv",
        _constant(b"image,fx,fy,cx,cy\na/b.jpg,500,500,16,12\n"),
        partial(_text, "c.csv", _camera_of),
        TEXT_FORMAT,
        (_csv_attack,),
    ),
    Format("hypersim split table", _constant(_SPLIT_TABLE), _read_split_table, TEXT_FORMAT),
    Format("hypersim frame list", _constant(_FRAME_LIST), partial(_text, "list.txt", read_file_list), TEXT_FORMAT),
    Format("virtual kitti cameras", _kitti_cameras, partial(_text, "intrinsic.txt", read_intrinsics), TEXT_FORMAT),
]
