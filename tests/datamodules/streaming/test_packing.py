import dataclasses

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from datamodules import DatasetSource, GeometryDataModule
from datamodules.shards.codecs import encode_array, encode_image
from datamodules.shards.manifest import DatasetManifest
from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.packing import PackedBatch
from tests.helpers.planes import encode_plane, make_dataset
from tests.helpers.tiny import tensors_of

SIZE = (12, 16)
MANIFEST = DatasetManifest("planes", SIZE, ("image", "depth", "normals"), {}, {"depth": (0.1, 60.0)})
BOTH = ("depth", "normals")


def stored(seed, depth_type):
    """A sample of random numbers, a few of them unknown or out of range, and what is stored in it."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    depth = random.uniform(-1, 70, SIZE).astype(depth_type)
    depth[0, :2] = 0
    normals = random.normal(size=(3, *SIZE))
    normals = (normals / np.linalg.norm(normals, axis=0)).astype(np.float16)
    normals[:, 1, :3] = 0
    entries = {
        "image.png": encode_image(image, "png"),
        "depth.blosc": encode_array(depth),
        "normals.blosc": encode_array(normals),
    }
    return dataclasses.replace(encode_plane(str(seed)), entries=entries), image, depth, normals


def as_the_model_must_see_it(image, depth, normals, flip):
    """The contract, computed sample by sample in the plainest way from what is stored."""
    image, depth, normals = (
        torch.from_numpy(np.array(a, np.float32)) for a in (image.transpose(2, 0, 1), depth, normals)
    )
    if flip:
        image, depth, normals = image.flip(-1), depth.flip(-1), normals.flip(-1)
        normals[0] = -normals[0]
    image = image * (2 / 255) - 1
    valid = (depth >= float(np.float16(0.1))) & (depth <= 60)
    x, y, z = normals
    squared = torch.addcmul(torch.addcmul(x * x, y, y), z, z)
    known = squared > 0.25
    return {
        "image": image,
        "depth": torch.where(valid, depth, 0.0)[None],
        "depth_mask": valid[None],
        "normals": torch.where(known, normals * squared.rsqrt(), 0.0),
        "normals_mask": known[None],
    }


@pytest.mark.parametrize("depth_types", [("float16", "float16"), ("float32", "float16"), (">f2", "float64")])
def test_what_the_model_sees_is_what_was_stored_to_the_last_bit(depth_types):
    samples, flips = [stored(seed, depth_type) for seed, depth_type in enumerate(depth_types)], [True, False]
    packed, problems = BatchAssembler("planes", MANIFEST, BOTH).assemble([sample for sample, *_ in samples], flips)
    tensors = tensors_of(packed.expand())
    assert problems == []
    for index, (_, *arrays) in enumerate(samples):
        for name, expected in as_the_model_must_see_it(*arrays, flips[index]).items():
            assert torch.equal(tensors[name][index], expected), name


def test_a_packed_batch_is_one_piece_of_memory_less_than_half_the_size():
    assembler = BatchAssembler("planes", MANIFEST, BOTH)
    packed, _ = assembler.assemble([stored(seed, "float16")[0] for seed in range(4)], [False] * 4)
    expanded = sum(tensor.nbytes for tensor in tensors_of(packed.expand()).values())
    assert packed.buffer.nbytes < 0.5 * expanded


def test_expanding_leaves_a_batch_of_float32_depth_as_it_is():
    packed, _ = BatchAssembler("planes", MANIFEST, BOTH).assemble([stored(0, "float32")[0]], [False])
    before = packed.buffer.clone()
    packed.expand()
    assert torch.equal(packed.buffer, before)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_under_a_trainer_batches_travel_packed_and_the_model_sees_the_same(tmp_path, num_workers):
    make_dataset(tmp_path, "a", {"train": [5, 4], "val": [3]})
    batches = []
    for trainer in (None, Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)):
        data = GeometryDataModule(
            [DatasetSource(str(tmp_path))], modalities=["depth", "normals"], num_workers=num_workers, seed=1
        )
        data.trainer = trainer
        data.setup("fit")
        delivered = [*data.train_dataloader(), *data.val_dataloader()[0]]
        assert all(isinstance(batch, PackedBatch) is (trainer is not None) for batch in delivered)
        batches.append([data.on_after_batch_transfer(batch, 0) for batch in delivered])
        data.teardown("fit")
    for plain, packed in zip(*batches, strict=True):
        assert (plain.key, plain.dataset) == (packed.key, packed.dataset)
        expected, tensors = tensors_of(plain), tensors_of(packed)
        assert expected.keys() == tensors.keys()
        for name, value in expected.items():
            assert torch.equal(value, tensors[name]), name


@pytest.mark.gpu
def test_a_batch_copied_to_a_gpu_beside_its_work_is_complete():
    packed, _ = BatchAssembler("planes", MANIFEST, BOTH).assemble([stored(0, "float16")[0]], [True])
    on_gpu = tensors_of(packed.pin_memory().to(torch.device("cuda")).expand())
    expected = tensors_of(packed.expand())
    for name in ("image", "depth", "depth_mask", "camera"):
        assert torch.equal(on_gpu[name].cpu(), expected[name])
    torch.testing.assert_close(on_gpu["normals"].cpu(), expected["normals"], atol=1e-6, rtol=0)
