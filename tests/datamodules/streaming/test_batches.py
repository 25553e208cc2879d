import dataclasses

import numpy as np
import pytest
import torch

from datamodules.shards.codecs import encode_array
from datamodules.shards.manifest import DatasetManifest
from datamodules.streaming.batches import BatchAssembler
from geometry.camera import pixel_rays, unproject
from geometry.errors import InputError
from tests.datamodules.planes import DISTANCE_M, NORMAL, encode_plane

MANIFEST = DatasetManifest("planes", (12, 16), 1e-5, 65.0, ("image", "depth", "normals"), {})
CAMERA = torch.tensor([[1 / 16, 0, -0.5], [0, -1 / 16, 0.375], [0, 0, -1]])


def assemble(*samples, flips=None, normals=True):
    return BatchAssembler("planes", MANIFEST, normals).assemble(samples, flips or [False] * len(samples))


def with_entry(name, array):
    sample = encode_plane("k")
    return dataclasses.replace(sample, entries={**sample.entries, name: encode_array(array)})


def test_a_batch_keeps_the_contract():
    batch = assemble(encode_plane("a"), encode_plane("b"))
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.items() if torch.is_tensor(value)}
    assert shapes == {
        "image": ((2, 3, 12, 16), torch.float32),
        "depth": ((2, 1, 12, 16), torch.float32),
        "valid_mask": ((2, 1, 12, 16), torch.bool),
        "normals": ((2, 3, 12, 16), torch.float32),
        "normals_mask": ((2, 1, 12, 16), torch.bool),
    }
    assert (batch["key"], batch["dataset"]) == (["a", "b"], "planes")
    assert batch["image"][0, :, 0, 0].tolist() == [-1] * 3
    assert batch["image"][0, :, 0, -1].tolist() == [1] * 3


def test_normals_are_left_out_unless_asked_for():
    assert "normals" not in assemble(encode_plane("a"), normals=False)


@pytest.mark.parametrize("flip", [False, True])
def test_image_depth_and_normals_are_mirrored_together(flip):
    batch = assemble(encode_plane("a"), flips=[flip])
    image, depth, normals = batch["image"][0], batch["depth"][0], batch["normals"][0]
    brighter_side = image[0, 0, -1] > image[0, 0, 0]
    assert bool(brighter_side) is not flip
    # The camera is symmetric, so the mirrored plane must satisfy its own equation: normal . point = -distance.
    points = unproject(depth, pixel_rays(CAMERA, 12, 16, 0.5))
    torch.testing.assert_close((normals * points).sum(0), torch.full((12, 16), -DISTANCE_M), atol=0.01, rtol=0)
    assert normals[0, 0, 0].item() == pytest.approx(-NORMAL[0] if flip else NORMAL[0], abs=1e-3)


def test_only_the_chosen_samples_are_mirrored():
    batch = assemble(encode_plane("a"), encode_plane("b"), flips=[True, False])
    assert batch["normals"][0, 0].max() < 0 < batch["normals"][1, 0].min()


def test_unknown_and_out_of_range_depth_is_invalid_and_zero():
    depth = np.full((12, 16), 5.0, np.float32)
    depth[0, :6] = [0, np.nan, np.inf, -1, 65.5, 65]
    batch = assemble(with_entry("depth.blosc", depth))
    assert batch["valid_mask"][0, 0, 0, :7].tolist() == [False] * 5 + [True] * 2
    assert batch["depth"][0, 0, 0, :7].tolist() == [0, 0, 0, 0, 0, 65, 5]


def test_depth_on_a_plane_that_float16_rounds_stays_valid():
    manifest = dataclasses.replace(MANIFEST, near_plane_m=0.1, far_plane_m=70.03)
    sample = with_entry("depth.blosc", np.where(np.arange(16) < 8, 0.1, 70.03)[None].repeat(12, 0).astype(np.float16))
    assert BatchAssembler("a", manifest, False).assemble([sample], [False])["valid_mask"].all()


def test_normals_are_unit_vectors_where_known_and_zero_elsewhere():
    normals = np.zeros((3, 12, 16), np.float32)
    normals[2] = 1.001
    normals[:, 0, :3] = [[0, np.nan, 0.01], [0, 0, 0], [0, 1, 0]]
    batch = assemble(with_entry("normals.blosc", normals))
    assert batch["normals_mask"][0, 0, 0, :4].tolist() == [False, False, False, True]
    length = batch["normals"].norm(dim=1)
    torch.testing.assert_close(length, batch["normals_mask"][:, 0].float())


@pytest.mark.parametrize(("name", "shape"), [("depth.blosc", (12, 15)), ("normals.blosc", (12, 16, 3))])
def test_an_entry_of_the_wrong_size_names_the_sample(name, shape):
    with pytest.raises(InputError, match=r"'k'.*shape"):
        assemble(with_entry(name, np.ones(shape, np.float16)))
