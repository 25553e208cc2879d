"""Shards of format 2: arrays compressed with lz4hc, normals as codes. Shards of format 1 stay what they are."""

import dataclasses
import io
import json

import cv2
import numpy as np
import pytest
import torch
from numcodecs import blosc

from datamodules.preparation.checking import check_dataset
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.run import prepare_dataset
from datamodules.shards.codecs import decode_codes, encode_array
from datamodules.shards.files import decode_sample
from datamodules.shards.manifest import read_dataset
from datamodules.sources.folder import FolderDataset
from datamodules.sources.folder_cameras import FolderCameras
from datamodules.sources.folder_options import Files, Meaning, Size
from datamodules.streaming.augmentation import Augmentation
from datamodules.streaming.batches import BatchAssembler
from geometry.errors import InputError
from geometry.modalities.codings import OctahedralDirections
from tests.helpers.shards import iterate_shard
from tests.helpers.tiny import tensors_of

SIZE = (24, 32)
ROLES = ("image", "depth", "normals", "info")


def raw_frames(folder, count=5):
    """Files of random depth and normals, some unknown."""
    random = np.random.default_rng(0)
    for kind in ("image", "depth", "normals"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        depth = random.uniform(0.5, 9, SIZE).astype(np.float32)
        normals = random.normal(size=(*SIZE, 3)).astype(np.float32)
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        depth[:2, :3], normals[5:7, :4] = 0, 0
        np.save(folder / f"depth/{number}.npy", depth)
        np.save(folder / f"normals/{number}.npy", normals)
        cv2.imwrite(str(folder / f"image/{number}.png"), random.integers(0, 255, (*SIZE, 3), dtype=np.uint8))


def prepared(raw, out, shard_format=None, reports=None, **options):
    folders = {kind: raw / kind for kind in ("image", "depth")}
    data = FolderDataset(
        Files(folders["image"], folders["depth"], str(raw / "normals")),
        meaning=Meaning(far=20.0),
        cameras=FolderCameras((20.0, 20.0, 16.0, 12.0)),
        fit=Size(crop=SIZE),
    )
    report = (reports if reports is not None else []).append
    prepare_dataset(data, out, ShardOptions(2, shard_format=shard_format), progress=False, report=report, **options)
    return read_dataset(out)


def samples_of(dataset):
    shards = dataset.manifest.splits["train"]
    return [sample for shard in shards for sample in iterate_shard(dataset.shard_url(shard), ROLES)]


@pytest.fixture
def both(tmp_path):
    raw_frames(tmp_path / "raw")
    return [prepared(tmp_path / "raw", tmp_path / f"format-{number}", number) for number in (1, 2)]


def batches(dataset, **options):
    assembler = BatchAssembler("mine", dataset.manifest, ("depth", "normals"))
    samples = samples_of(dataset)
    return assembler.assemble(samples, [index % 2 == 1 for index in range(len(samples))], **options)


def test_depth_is_the_same_to_the_bit_and_normals_within_the_tolerance(both):
    first, second = (tensors_of(batches(dataset)[0].expand()) for dataset in both)
    for name in ("image", "depth", "depth_mask", "normals_mask", "camera"):
        assert torch.equal(first[name], second[name]), name
    both_known = second["normals_mask"].expand(-1, 3, -1, -1)
    chord = (first["normals"] - second["normals"]).double().norm(dim=1, keepdim=True)[second["normals_mask"]]
    assert 0 < np.degrees(2 * np.arcsin(float(chord.max()) / 2)) < 0.06  # half of it is format 1's own
    assert (second["normals"][~both_known] == 0).all()


def test_normals_travel_as_codes_in_two_thirds_of_the_memory(both):
    fields = [batches(dataset)[0].fields["normals"] for dataset in both]
    assert [field.dtype for field in fields] == ["float16", "int16"]
    assert fields[1].num_bytes * 3 == fields[0].num_bytes * 2


def test_crops_of_codes_are_crops_of_normals(both):
    change = Augmentation(crop=0.5).draw(3)
    first, second = (tensors_of(batches(data, changes=[change] * 5)[0].expand()) for data in both)
    assert torch.equal(first["depth"], second["depth"]) and torch.equal(first["normals_mask"], second["normals_mask"])
    torch.testing.assert_close(first["normals"], second["normals"], atol=1e-3, rtol=0)


def test_a_bad_sample_changes_no_other_one_of_its_batch(both):
    _, dataset = both
    assembler, samples = BatchAssembler("mine", dataset.manifest, ("depth", "normals")), samples_of(dataset)
    bad = [*samples[:4], dataclasses.replace(samples[4], problem="lost")]
    whole, part = (tensors_of(assembler.assemble(some, [False] * 5)[0].expand()) for some in (samples, bad))
    assert torch.equal(whole["normals"][:4], part["normals"][:4]) and not part["normals_mask"][4].any()


def test_a_batch_of_both_formats_is_read(both):
    first, second = map(samples_of, both)
    assembler = BatchAssembler("mine", both[1].manifest, ("depth", "normals"))
    packed, problems = assembler.assemble([first[0], second[1]], [False, True])
    alone = tensors_of(batches(both[0])[0].expand())
    assert not problems and packed.fields["normals"].dtype == "float16"
    torch.testing.assert_close(tensors_of(packed.expand())["normals"], alone["normals"][:2], atol=1e-3, rtol=0)


def test_check_takes_both_and_normals_decode_to_float16(both):
    for dataset in both:
        assert [check.problems for check in check_dataset(dataset.root, False, compare=0)] == [[]]
        assert decode_sample(samples_of(dataset)[0], ROLES)["normals"].dtype == np.float16


def test_programs_that_know_no_codes_are_told_so_by_the_version(both):
    versions = [json.loads(open(f"{dataset.root}/dataset.json").read())["format_version"] for dataset in both]
    assert versions == [1, 3]
    assert both[1].manifest.codings == {"normals": "octahedral"} and both[0].manifest.codings == {}


def test_what_was_begun_in_format_1_is_continued_in_it(tmp_path):
    raw_frames(tmp_path / "raw")
    whole = prepared(tmp_path / "raw", tmp_path / "whole", 1)
    with pytest.raises(InputError, match=r"dataset\.json"):  # a part only
        prepared(tmp_path / "raw", tmp_path / "out", 1, part=(1, 2))
    reports = []
    continued = prepared(tmp_path / "raw", tmp_path / "out", None, reports)
    assert continued.manifest == whole.manifest and any(line.startswith("Continuing") for line in reports)
    prepared(tmp_path / "raw", tmp_path / "out", None, reports)
    assert "is complete already" in reports[-1]
    with pytest.raises(InputError, match="already holds"):
        prepared(tmp_path / "raw", tmp_path / "out", 2)


def test_a_new_folder_gets_format_2(tmp_path):
    raw_frames(tmp_path / "raw")
    dataset = prepared(tmp_path / "raw", tmp_path / "out")
    assert {name for sample in samples_of(dataset) for name in sample.entries} == {
        "image.jpg",
        "depth.blosc",
        "normals.octahedral",
        "json",
    }


def codes(shape=(2, *SIZE), dtype=np.int16):
    return encode_array(np.full(shape, 4095, dtype), 2)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (codes((3, *SIZE)), "shape"),
        (codes((2, 4, 4)), "shape"),
        (codes((4095,)), "shape"),
        (codes(dtype=np.float16), "int16"),
        (codes(dtype=">i2"), "int16"),
        (codes((2, 3000, 3000)), "claims 36000128 bytes"),
        (codes()[:-3], "Blosc"),
        (b"\x80\x04K\x01.", "Blosc"),
    ],
)
def test_codes_that_are_none_make_a_bad_sample(both, entry, message):
    sample = samples_of(both[1])[0]
    entries = {name: data for name, data in sample.entries.items() if not name.startswith("normals")}
    sample = dataclasses.replace(sample, entries={**entries, "normals.octahedral": entry})
    _, problems = BatchAssembler("mine", both[1].manifest, ("depth", "normals")).assemble([sample], [False])
    assert len(problems) == 1 and message in problems[0]


def test_codes_are_int16_in_c_order():
    coded = OctahedralDirections().encode(np.ones((3, 4, 5), np.float32), np.ones((4, 5), bool))
    np.testing.assert_array_equal(decode_codes(encode_array(coded, 2)), coded)
    with pytest.raises(InputError, match="C order"):
        decode_codes(encode_array_in_fortran_order(coded))


def encode_array_in_fortran_order(array):
    file = io.BytesIO()
    np.save(file, np.asfortranarray(array))
    return bytes(blosc.Blosc("lz4").encode(file.getvalue()))
