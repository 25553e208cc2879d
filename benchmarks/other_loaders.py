"""Other ways to read the same frames: plain PNG files, the paper authors' loader, MosaicML Streaming, litdata.

Contract: all return float32 batches of image, depth and perhaps normals with their masks, half of the samples mirrored,
in the order in which they would train (shuffled). ``PngFiles`` and the two libraries share what is done to a decoded
sample; ``AuthorsFiles`` does what the loader of the paper's authors does to a file, written out anew with Pillow alone.
The libraries hold what shards hold: the JPEG and the arrays in float16.
"""

import multiprocessing
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.shards.codecs import decode_jpeg
from datamodules.shards.files import decode_sample, scan_shard
from datamodules.shards.manifest import read_dataset

Array = np.ndarray
ROLES = ("image", "depth", "normals")
# Times that every frame is stored, so that shards are long.
COPIES = 16
# As in the authors' code, for Hypersim.
_NEAR_M, _FAR_M, _FOCAL_PX = 1e-5, 65.0, 886.81


def tensors_of_sample(image: Array, depth: Array, normals: Array | None, flip: bool) -> dict[str, Any]:
    """Return what a model sees of a decoded sample.

    Args:
        image: (H,W,3) uint8.
        depth: (H,W) metres.
        normals: (H,W,3) float, or None.
        flip: whether to mirror it.
    """
    image, depth = (cv2.flip(array, 1) if flip else array for array in (image, depth.astype(np.float32)))
    sample = {
        "image": torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1,
        "depth": torch.from_numpy(depth)[None],
        "depth_mask": torch.from_numpy((depth > 1e-3) & (depth < _FAR_M))[None],
    }
    if normals is not None:
        vectors = torch.from_numpy(cv2.flip(normals, 1) if flip else normals).permute(2, 0, 1).float()
        if flip:
            vectors[0] *= -1
        length = vectors.norm(dim=0, keepdim=True)
        sample["normals_mask"] = length > 0.5
        sample["normals"] = vectors / length * sample["normals_mask"]
    return sample


def write_png_files(shards: Path, folder: Path) -> None:
    """Write the samples of a prepared data set as PNG files: 8-bit image, 16-bit millimetres, 8-bit normals."""
    for kind in ROLES:
        (folder / kind).mkdir(parents=True)
    for key, _, decoded in _frames(shards):
        depth = np.rint(decoded["depth"].astype(np.float64) * 1000).astype(np.uint16)
        normals = np.rint(decoded["normals"].astype(np.float32).transpose(1, 2, 0) * 127.5 + 127.5).astype(np.uint8)
        images = {"image": decoded["image"][..., ::-1], "depth": depth, "normals": normals[..., ::-1]}
        for kind, image in images.items():
            cv2.imwrite(str(folder / kind / f"{key}.png"), image)


def _frames(shards: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Yield key, JPEG and decoded entries of every sample of a data set."""
    dataset = read_dataset(str(shards))
    for shard in dataset.manifest.splits["train"]:
        for sample in scan_shard(dataset.shard_url(shard), ROLES):
            yield sample.key, sample.entries["image.jpg"], decode_sample(sample, ROLES)


class PngFiles(Dataset):
    """Frames stored file by file, decoded in the obvious way.

    Args:
        folder: where ``write_png_files`` put them.
        modalities: what to load beside images.
    """

    def __init__(self, folder: Path, modalities: list[str]) -> None:
        self.folder, self.modalities = folder, modalities
        self.names = sorted(path.name for path in (folder / "image").iterdir()) * COPIES

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        depth = cv2.imread(str(self.folder / "depth" / name), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        normals = self._colors("normals", name).astype(np.float32) / 127.5 - 1 if "normals" in self.modalities else None
        return tensors_of_sample(self._colors("image", name), depth, normals, index % 2 == 1)

    def _colors(self, kind: str, name: str) -> Array:
        return cv2.cvtColor(cv2.imread(str(self.folder / kind / name)), cv2.COLOR_BGR2RGB)


class AuthorsFiles(PngFiles):
    """The same files, read as the paper's authors read Hypersim: with normals always, turned to the camera."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        image = Image.open(self.folder / "image" / name).convert("RGB")
        depth = Image.fromarray(np.array(Image.open(self.folder / "depth" / name)) / 1000)
        normals = Image.open(self.folder / "normals" / name).convert("RGB")
        normals = self._turned(normals, np.array(depth))
        if random.random() > 0.5:
            mirror = Image.Transpose.FLIP_LEFT_RIGHT
            image, depth, normals = (picture.transpose(mirror) for picture in (image, depth, normals))
            array = np.array(normals)
            array[:, :, 0] = 255 - array[:, :, 0]
            normals = Image.fromarray(array)
        metres, colors, vectors = _tensor(depth), _tensor(image), _tensor(normals)
        valid = (metres > _NEAR_M) & (metres < _FAR_M)
        known = metres[valid].float()
        low, high = torch.quantile(known, 0.02), torch.quantile(known, 0.98)
        metres = torch.clamp(metres, low, high)
        metres[~valid] = high
        relative = torch.clamp((metres - low) / (high - low) * 2 - 1, -1, 1)
        vectors = torch.nn.functional.normalize(vectors * 2 - 1, p=2, dim=0)
        vectors[:, ~valid[0]] = 0
        return {
            "image": colors * 2 - 1,
            "depth": torch.stack([relative] * 3).squeeze(),
            "metres": metres.clone(),
            "normals": vectors,
            "mask": valid,
        }

    def _turned(self, normals: Image.Image, depth: Array) -> Image.Image:
        vectors = np.array(normals) / 255.0 * 2 - 1
        height, width = vectors.shape[:2]
        vectors[:, :, 1:] *= -1
        rows, columns = np.mgrid[:height, :width].astype(np.float64)
        pixels = np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1)
        camera = np.array([[_FOCAL_PX, 0, width / 2], [0, _FOCAL_PX, height / 2], [0, 0, 1]])
        points = (depth * (np.linalg.inv(camera) @ pixels).reshape(3, height, width)).transpose(1, 2, 0)
        vectors[np.sum(vectors * points, axis=2) > 0] *= -1
        return Image.fromarray(((-vectors + 1) / 2 * 255).astype(np.uint8))


def _tensor(picture: Image.Image) -> Tensor:
    array = np.array(picture)
    if array.ndim == 2:
        return torch.from_numpy(array)[None]
    return torch.from_numpy(array).permute(2, 0, 1).contiguous().to(torch.float32).div(255)


def file_batches(files: Dataset, batch_size: int, workers: int) -> Iterator[dict[str, Any]]:
    """Yield training batches of files without end."""
    loader: DataLoader = DataLoader(
        files, batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    while True:
        yield from loader


class _Expanded:
    """What a data set of a library returns, as a model sees it."""

    def __init__(self, modalities: list[str]) -> None:
        self.modalities, self.count = modalities, 0

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        self.count += 1
        normals = None
        if "normals" in self.modalities:
            normals = np.ascontiguousarray(np.asarray(sample["normals"]).astype(np.float32).transpose(1, 2, 0))
        image = decode_jpeg(bytes(sample["image"]))
        return tensors_of_sample(image, np.asarray(sample["depth"]), normals, self.count % 2 == 1)


def stored_samples(once: Path) -> list[dict[str, Any]]:
    """Return what a library stores of a prepared data set, every frame many times."""
    samples = [
        {"image": jpeg, "depth": decoded["depth"], "normals": decoded["normals"]} for _, jpeg, decoded in _frames(once)
    ]
    return samples * COPIES


def mosaic(once: Path, folder: Path) -> Callable[[list[str], int, int], Iterator[Any]]:
    """Write frames as MosaicML Streaming does, and return what makes endless batches of modalities.

    Raises:
        ImportError: the package ``mosaicml-streaming`` is not installed.
    """
    from streaming import MDSWriter, StreamingDataset

    columns = {"image": "bytes", "depth": "ndarray:float16", "normals": "ndarray:float16"}
    with MDSWriter(out=str(folder), columns=columns, compression=None) as writer:
        for sample in stored_samples(once):
            writer.write(sample)

    class Frames(StreamingDataset):
        def __init__(self, expand: _Expanded, batch_size: int) -> None:
            super().__init__(local=str(folder), batch_size=batch_size, shuffle=True)
            self.expand = expand

        def __getitem__(self, at: Any) -> Any:  # noqa: ANN401
            return self.expand(super().__getitem__(at))

    def batches(modalities: list[str], batch_size: int, workers: int) -> Iterator[Any]:
        frames = Frames(_Expanded(modalities), batch_size)
        loader: DataLoader = DataLoader(frames, batch_size, num_workers=workers, persistent_workers=workers > 0)
        while True:
            yield from loader

    return batches


def stored_sample(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a sample as it is: litdata asks for a function of the module's own."""
    return sample


def litdata(once: Path, folder: Path) -> Callable[[list[str], int, int], Iterator[Any]]:
    """Write frames as litdata does, and return what makes endless batches of modalities.

    Raises:
        ImportError: the package ``litdata`` is not installed.
    """
    from litdata import StreamingDataLoader, StreamingDataset, optimize

    method = multiprocessing.get_start_method()
    optimize(fn=stored_sample, inputs=stored_samples(once), output_dir=str(folder), chunk_bytes="64MB", num_workers=1)
    multiprocessing.set_start_method(method, force=True)  # it has chosen another one for the whole process

    class Frames(StreamingDataset):
        expand: _Expanded

        def __getitem__(self, index: Any) -> Any:  # noqa: ANN401
            return self.expand(super().__getitem__(index))

    def batches(modalities: list[str], batch_size: int, workers: int) -> Iterator[Any]:
        frames = Frames(str(folder), shuffle=True)
        frames.expand = _Expanded(modalities)
        loader = StreamingDataLoader(frames, batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0)
        while True:
            yield from loader

    return batches
