"""Training images that are cropped, recoloured and blurred: the truth stays true, and a resumed run sees the same."""

import numpy as np
import pytest
import torch

from datamodules import DatasetSource, GeometryDataModule
from datamodules.streaming.augmentation import Augmentation, Change
from geometry.errors import InputError
from tests.helpers.planes import make_dataset
from tests.helpers.tiny import tensors_of

ALL = Augmentation(crop=0.5, color=0.3, blur=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), "planes", {"train": [6, 5], "val": [2]}, size=(24, 32)).root


def module(folder, augmentation=ALL, **options):
    data = GeometryDataModule(
        [DatasetSource(str(folder))],
        modalities=["depth", "normals"],
        augmentation=augmentation,
        batches_per_epoch=20,
        **options,
    )
    data.setup("fit")
    return data


def batches(loader, number):
    stream = iter(loader)
    return [next(stream) for _ in range(number)]


def same(first, second):
    return all(torch.equal(tensor, tensors_of(second)[name]) for name, tensor in tensors_of(first).items())


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_depth_and_normals_of_a_crop_are_those_that_its_camera_sees(folder, flip):
    data = module(folder, Augmentation(crop=0.5), num_workers=0, horizontal_flip=flip)
    whole = batches(module(folder, Augmentation(), num_workers=0, horizontal_flip=flip).train_dataloader(), 1)[0]
    batch = batches(data.train_dataloader(), 1)[0]
    assert batch.key == whole.key and not torch.allclose(batch.camera, whole.camera)
    rows, columns = torch.meshgrid(torch.arange(24) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)])
    for number in range(len(batch.key)):
        rays = torch.einsum("ij,jhw->ihw", batch.camera[number], pixels)
        rays = rays / -rays[2]
        normals, depth = batch.targets["normals"].values[number], batch.targets["depth"].values[number, 0]
        distance = -(normals * rays).sum(dim=0) * depth
        # The plane is 3 m away. A nearest pixel lies up to half a pixel beside the ray.
        assert (distance - 3).mean().abs() < 0.01 and (distance - 3).abs().max() < 0.3
    taken, there = (each.targets["depth"].values for each in (batch, whole))
    assert torch.isin(taken, there).all(), "no depth between two surfaces is made up"


def test_what_a_sample_looks_like_does_not_depend_on_processes_or_resuming(folder):
    undisturbed = batches(module(folder, num_workers=0).train_dataloader(), 8)
    data = module(folder, num_workers=0)
    loader = data.train_dataloader()
    batches(loader, 3)
    resumed = module(folder, num_workers=0).train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    assert all(same(*pair) for pair in zip(batches(resumed, 5), undisturbed[3:], strict=True))
    apart = module(folder, num_workers=2)
    assert all(same(*pair) for pair in zip(batches(apart.train_dataloader(), 8), undisturbed, strict=True))
    apart.teardown("")
    by_key = {}
    for batch in undisturbed:
        for key, camera in zip(batch.key, batch.camera, strict=True):
            by_key.setdefault(key, []).append(camera)
    again = [cameras for cameras in by_key.values() if len(cameras) > 1]
    assert again and all(not torch.equal(cameras[0], cameras[1]) for cameras in again), "every epoch crops anew"


def test_nothing_is_changed_by_default_and_nothing_in_validation(folder):
    plain, off = (
        module(folder, Augmentation(), num_workers=0),
        GeometryDataModule([DatasetSource(str(folder))], modalities=["depth", "normals"], num_workers=0),
    )
    off.setup("fit")
    assert all(
        same(*pair)
        for pair in zip(batches(plain.train_dataloader(), 3), batches(off.train_dataloader(), 3), strict=True)
    )
    changed = module(folder, num_workers=0)
    assert same(batches(changed.val_dataloader()[0], 1)[0], batches(off.val_dataloader()[0], 1)[0])


def test_colour_and_blur_change_the_image_alone():
    image = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    depth = np.ones((1, 24, 32), np.float16)
    for change in (Change(1.0, (0, 0), (1.2, 1, 1), 0), Change(1.0, (0, 0), (1, 1, 1), 1.0)):
        changed = change.apply({"image": image, "depth": depth}, ["depth"])
        assert not np.array_equal(changed["image"], image) and changed["image"].dtype == np.uint8
        assert changed["depth"] is depth
    darker = Change(1.0, (0, 0), (0.5, 1, 1), 0).apply({"image": image}, [])["image"]
    assert np.abs(darker - image / 2).max() <= 0.5
    grey = Change(1.0, (0, 0), (1, 1, 0), 0).apply({"image": image}, [])["image"]
    assert np.array_equal(grey[..., 0], grey[..., 1])


@pytest.mark.parametrize("options", [{"crop": 0}, {"crop": 1.5}, {"color": 1}, {"blur": -1}, {"blur": float("nan")}])
def test_values_out_of_range_are_one_line(options):
    with pytest.raises(InputError, match=r"data\.augmentation needs"):
        Augmentation(**options)
