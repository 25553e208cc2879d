"""What programs of version 0.1 can read is written to the bit as they wrote it, and what they wrote is read."""

import hashlib
import json

import cv2
import numpy as np
import pytest

from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.run import prepare_dataset
from datamodules.shards.files import decode_sample
from datamodules.shards.manifest import DatasetManifest, read_dataset
from datamodules.sources.folder import FolderDataset
from datamodules.sources.folder_cameras import FolderCameras
from datamodules.sources.folder_options import Files, Meaning, Size
from geometry.errors import InputError
from tests.helpers.planes import make_dataset
from tests.helpers.shards import iterate_shard

# Of the content of shards and dataset.json as version 0.1 wrote them; bytes of JPEG and Blosc depend on libraries.
PINNED = {
    "0.depth": "5a1bf37c1dc2a799",
    "0.normals": "7a3ca2a8343af93f",
    "0.info": "669ac73849facd6e",
    "1.depth": "b7ebd897759179ce",
    "dataset.json": "d44428a46d6e2fee",
}


def write_files(folder):
    """Numbers that every machine computes alike."""
    for kind in ("image", "depth", "normals"):
        (folder / kind).mkdir(parents=True)
    for number in range(2):
        depth = 2 + np.arange(8 * 12, dtype=np.float32).reshape(8, 12) / 16 + number
        depth[:2, :3] = 0
        normals = np.zeros((8, 12, 3), np.float32)
        normals[..., 2], normals[3:, 4] = 1, (0.6, 0, 0.8)
        normals[:1] = 0
        cv2.imwrite(str(folder / f"image/{number}.png"), np.full((8, 12, 3), 50 + number, np.uint8))
        np.save(folder / f"depth/{number}.npy", depth)
        np.save(folder / f"normals/{number}.npy", normals)


def prepare(folder):
    folders = {kind: folder / "raw" / kind for kind in ("image", "depth")}
    raw = FolderDataset(
        Files(folders["image"], folders["depth"], str(folder / "raw" / "normals")),
        meaning=Meaning(far=7.5),
        cameras=FolderCameras((10.0, 10.0, 6.0, 4.0)),
        fit=Size(crop=(4, 12)),
    )
    prepare_dataset(raw, folder / "out", ShardOptions(shard_format=1), progress=False, report=lambda line: None)
    return read_dataset(folder / "out")


def sha256(data):
    return hashlib.sha256(data).hexdigest()[:16]


def test_depth_and_normals_are_prepared_to_the_bit_as_in_version_0_1(tmp_path):
    write_files(tmp_path / "raw")
    dataset = prepare(tmp_path)
    roles = ("image", "depth", "normals", "info")
    found = {}
    for sample in iterate_shard(dataset.shard_url(dataset.manifest.splits["train"][0]), roles):
        found[f"{sample.key}.info"] = sha256(sample.entries["json"])
        decoded = decode_sample(sample, roles)
        for name in ("depth", "normals"):
            found[f"{sample.key}.{name}"] = sha256(decoded[name].tobytes() + decoded[name].dtype.str.encode())
    document = json.loads((tmp_path / "out/dataset.json").read_text())
    for shard in document["splits"]["train"]:
        shard["sha256"] = ""
    document["statistics"]["train"]["num_bytes"] = 0
    found["dataset.json"] = sha256(json.dumps(document).encode())  # in the order of the file
    assert {name: found[name] for name in PINNED} == PINNED


def test_a_data_set_of_version_1_comes_back_as_it_was_written(tmp_path):
    write_files(tmp_path / "raw")
    manifest = prepare(tmp_path).manifest
    document = json.loads((tmp_path / "out/dataset.json").read_text())
    assert document["format_version"] == 1 and "ranges" not in document
    assert json.loads(json.dumps(manifest.to_document())) == document
    assert manifest.statistics["train"]["modalities"]["depth"]["max"] == document["statistics"]["train"]["depth_max_m"]


@pytest.mark.parametrize(
    ("entries", "ranges", "version"),
    [
        (("image", "depth"), {"depth": (0.1, 9.0)}, 1),
        (("image", "normals"), {}, 2),
        (("image", "depth", "normals"), {}, 2),
    ],
)
def test_version_2_is_written_only_for_what_version_1_cannot_say(entries, ranges, version):
    document = DatasetManifest("a", (4, 4), entries, {}, ranges).to_document()
    assert document["format_version"] == version
    assert ("near_plane_m" in document) == (version == 1)


def test_a_data_set_without_depth_is_read(tmp_path):
    DatasetManifest("a", (4, 4), ("image", "normals"), {"train": []}).write(tmp_path)
    manifest = read_dataset(tmp_path).manifest
    assert manifest.modalities == ("normals",) and manifest.ranges == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entries": ["image", "matting"]}, "image is needed, and some of .*depth"),
        ({"entries": ["image"]}, "image is needed, and some of"),
        ({"entries": ["normals"]}, "image is needed"),
        ({"ranges": {"depth": [1, 2]}}, "ranges are"),
        ({"ranges": {"normals": [2, 1]}}, "smallest and largest normals"),
        ({"format_version": 4}, "format_version is 4"),
        ({"format_version": 3}, "codings are None, this program knows .*octahedral"),
        ({"format_version": 3, "codings": {"normals": "cubic"}}, "codings are .*cubic"),
        ({"format_version": 3, "codings": {"depth": "octahedral"}}, "codings are .*depth"),
        ({"format_version": 3, "codings": [1]}, "codings are"),
        ({"format_version": True}, "format_version is True"),
    ],
)
def test_every_wrong_field_of_version_2_is_named(tmp_path, change, message):
    DatasetManifest("a", (4, 4), ("image", "normals"), {"train": []}).write(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        read_dataset(tmp_path)


def test_depth_cannot_be_negative_in_either_version(tmp_path):
    make_dataset(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "near_plane_m": -1}))
    with pytest.raises(InputError, match=r"smallest and largest depth are \[-1"):
        read_dataset(tmp_path)
