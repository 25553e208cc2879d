import dataclasses
import re

import numpy as np
import pytest
import torch

from datamodules.shards.codecs import encode_array, encode_image, encode_json
from datamodules.shards.files import EncodedSample
from datamodules.shards.manifest import DatasetManifest
from datamodules.streaming.batches import BatchAssembler
from geometry.camera import pixel_rays, unproject
from tests.helpers.planes import DISTANCE_M, NORMAL, encode_plane, plane_depth, rays_of
from tests.helpers.tiny import tensors_of

MANIFEST = DatasetManifest("planes", (12, 16), ("image", "depth", "normals"), {}, {"depth": (1e-5, 65.0)})
BOTH = ("depth", "normals")
CAMERA = torch.tensor([[1 / 16, 0, -0.5], [0, -1 / 16, 0.375], [0, 0, -1]])


def assemble(*samples, flips=None, modalities=BOTH):
    batch, problems = BatchAssembler("planes", MANIFEST, modalities).assemble(samples, flips or [False] * len(samples))
    assert problems == []
    return batch.expand()


def with_entry(name, array, data=None):
    sample = encode_plane("k")
    return dataclasses.replace(sample, entries={**sample.entries, name: data or encode_array(array)})


def test_a_batch_keeps_the_contract():
    batch = assemble(encode_plane("a"), encode_plane("b"))
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in tensors_of(batch).items()}
    assert shapes == {
        "image": ((2, 3, 12, 16), torch.float32),
        "depth": ((2, 1, 12, 16), torch.float32),
        "depth_mask": ((2, 1, 12, 16), torch.bool),
        "normals": ((2, 3, 12, 16), torch.float32),
        "normals_mask": ((2, 1, 12, 16), torch.bool),
        "camera": ((2, 3, 3), torch.float32),
    }
    assert (batch.key, batch.dataset.name) == (["a", "b"], "planes")
    assert batch.image[0, :, 0, 0].tolist() == [-1] * 3
    assert batch.image[0, :, 0, -1].tolist() == [1] * 3


def test_a_modality_is_left_out_unless_asked_for():
    assert list(assemble(encode_plane("a"), modalities=["depth"]).targets) == ["depth"]
    assert list(assemble(encode_plane("a"), modalities=["normals"]).targets) == ["normals"]


@pytest.mark.parametrize("flip", [False, True])
def test_image_depth_and_normals_are_mirrored_together(flip):
    batch = assemble(encode_plane("a"), flips=[flip])
    image, depth, normals = batch.image[0], batch.targets["depth"].values[0], batch.targets["normals"].values[0]
    brighter_side = image[0, 0, -1] > image[0, 0, 0]
    assert bool(brighter_side) is not flip
    # The camera is symmetric, so the mirrored plane must satisfy its own equation: normal . point = -distance.
    points = unproject(depth, pixel_rays(CAMERA, 12, 16, 0.5))
    torch.testing.assert_close((normals * points).sum(0), torch.full((12, 16), -DISTANCE_M), atol=0.01, rtol=0)
    assert normals[0, 0, 0].item() == pytest.approx(-NORMAL[0] if flip else NORMAL[0], abs=1e-3)


def plane_seen_from_the_side(pixel_center):
    """The slanted plane, seen by a camera whose principal point is far off the centre."""
    camera = np.array([[1 / 20, 0, -0.15], [0, -1 / 18, 0.5], [0, 0, -1]])
    rays = rays_of(camera, 12, 16, pixel_center)
    entries = {
        "depth.blosc": encode_array(plane_depth(rays).astype(np.float32)),
        "json": encode_json({"camera_from_pixel": camera.tolist(), "pixel_center": pixel_center}),
    }
    return dataclasses.replace(encode_plane("k"), entries={**encode_plane("k").entries, **entries})


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
def test_points_by_the_batchs_own_camera_lie_on_the_plane_mirrored_or_not(flip, pixel_center):
    batch = assemble(plane_seen_from_the_side(pixel_center), flips=[flip])
    points = unproject(batch.targets["depth"].values, pixel_rays(batch.camera, 12, 16))
    distance = (batch.targets["normals"].values * points).sum(1)
    torch.testing.assert_close(distance, torch.full_like(distance, -DISTANCE_M), atol=0.01, rtol=0)


def test_a_camera_that_is_unknown_or_none_is_nan_and_hides_no_other():
    infos = [{}, {"camera_from_pixel": None, "pixel_center": 0.5}, {"camera_from_pixel": [[1, 2]], "pixel_center": 0.5}]
    infos += [{"camera_from_pixel": np.eye(3).tolist()}, {"camera_from_pixel": "a", "pixel_center": 0.5}]
    samples = [encode_plane("a"), *(with_entry("json", None, encode_json(info)) for info in infos)]
    entries = {name: data for name, data in encode_plane("b").entries.items() if name != "json"}
    samples.append(dataclasses.replace(encode_plane("b"), entries=entries))
    batch = assemble(*samples)
    torch.testing.assert_close(batch.camera[0], CAMERA)
    assert batch.camera[1:].isnan().all()
    assert all(bool(mask.any()) for mask in batch.targets["depth"].mask), "such samples are used all the same"


def test_only_the_chosen_samples_are_mirrored():
    batch = assemble(encode_plane("a"), encode_plane("b"), flips=[True, False])
    assert batch.targets["normals"].values[0, 0].max() < 0 < batch.targets["normals"].values[1, 0].min()


def test_unknown_and_out_of_range_depth_is_invalid_and_zero():
    depth = np.full((12, 16), 5.0, np.float32)
    depth[0, :4] = [0, -1, 65.5, 65]
    batch = assemble(with_entry("depth.blosc", depth))
    assert batch.targets["depth"].mask[0, 0, 0, :5].tolist() == [False] * 3 + [True] * 2
    assert batch.targets["depth"].values[0, 0, 0, :5].tolist() == [0, 0, 0, 65, 5]


def test_depth_on_a_plane_that_float16_rounds_stays_valid():
    manifest = dataclasses.replace(MANIFEST, ranges={"depth": (0.1, 70.03)})
    sample = with_entry("depth.blosc", np.where(np.arange(16) < 8, 0.1, 70.03)[None].repeat(12, 0).astype(np.float16))
    batch, _ = BatchAssembler("a", manifest, ("depth",)).assemble([sample], [False])
    assert batch.expand().targets["depth"].mask.all()


def test_normals_are_unit_vectors_where_known_and_zero_elsewhere():
    normals = np.zeros((3, 12, 16), np.float32)
    normals[2] = 1.001
    normals[:, 0, :3] = [[0, np.nan, 0.01], [0, 0, 0], [0, 1, 0]]
    batch = assemble(with_entry("normals.blosc", normals))
    assert batch.targets["normals"].mask[0, 0, 0, :4].tolist() == [False, False, False, True]
    length = batch.targets["normals"].values.norm(dim=1)
    torch.testing.assert_close(length, batch.targets["normals"].mask[:, 0].float())


def png_that_claims(width, height):
    data = bytearray(encode_plane("k").entries["image.png"])
    data[16:24] = width.to_bytes(4) + height.to_bytes(4)
    return bytes(data)


def jpeg_that_claims(width, height):
    data = bytearray(encode_image(np.zeros((12, 16, 3), np.uint8), "jpg"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2) + width.to_bytes(2)
    return bytes(data)


BAD = {
    "depth of the wrong size": ({"depth.blosc": encode_array(np.ones((12, 15), np.float16))}, "shape"),
    "normals of the wrong size": ({"normals.blosc": encode_array(np.ones((12, 16, 3), np.float16))}, "shape"),
    "a small image": ({"image.png": encode_image(np.zeros((6, 8, 3), np.uint8), "png")}, "shape"),
    "NaN depth": ({"depth.blosc": encode_array(np.where(np.eye(12, 16), np.nan, 1).astype(np.float16))}, "NaN"),
    "infinite depth": ({"depth.blosc": encode_array(np.full((12, 16), np.inf, np.float32))}, "NaN or infinite"),
    "a bomb of zeros": ({"depth.blosc": encode_array(np.zeros((3000, 3000), np.float32))}, "claims 36000128 bytes"),
    "a PNG bomb": ({"image.png": png_that_claims(30000, 30000)}, "claims 2700000000 bytes"),
    "a JPEG bomb": ({"image.png": b"", "image.jpg": jpeg_that_claims(60000, 60000)}, "claims 10800000000 bytes"),
    "a pickle in an array": ({"depth.blosc": b"\x80\x04K\x01."}, "Blosc"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_sample_is_named_and_becomes_a_blank_that_teaches_nothing(name):
    entries, message = BAD[name]
    good, bad = encode_plane("a"), encode_plane("k")
    kept = {entry: data for entry, data in {**bad.entries, **entries}.items() if data}
    batch, problems = BatchAssembler("planes", MANIFEST, BOTH).assemble(
        [good, EncodedSample("k", "s.tar", kept)], [False, True]
    )
    (problem,) = problems
    assert re.search(rf"s\.tar: sample 'k'.*{message}", problem)
    batch, alone = batch.expand(), assemble(good)
    assert batch.key == ["a", "k"]
    expected = tensors_of(alone)
    for name, tensor in tensors_of(batch).items():
        assert torch.equal(tensor[:1], expected[name])
        assert tensor[1].isnan().all() if name == "camera" else tensor[1].isfinite().all()
    assert not batch.targets["depth"].mask[1].any() and not batch.targets["normals"].mask[1].any()
