import dataclasses

import pytest
import torch

from geometry.batch import ANY_VALUE, DatasetInfo
from tests.helpers.tiny import make_batch, tensors_of

CAMERAS = torch.arange(27.0).reshape(3, 3, 3)


def batch_of_three(camera=CAMERAS):
    return dataclasses.replace(make_batch(3, 4, 6), camera=camera)


@pytest.mark.parametrize("images", [slice(1, 2), slice(0, None, 2), slice(1, None), slice(3, 3)])
def test_a_part_of_the_images_is_a_batch_of_their_tensors_keys_and_cameras(images):
    batch = batch_of_three()
    part = batch[images]
    assert part.key == batch.key[images] and len(part) == len(range(3)[images])
    assert part.dataset == batch.dataset
    expected = tensors_of(batch)
    assert tensors_of(part).keys() == expected.keys() == {*tensors_of(make_batch()), "camera"}
    for name, tensor in tensors_of(part).items():
        assert torch.equal(tensor, expected[name][images]), name


def test_batches_without_cameras_have_parts_without_cameras_and_are_moved_without():
    batch = batch_of_three(camera=None)
    assert batch[:1].camera is None and batch.to("meta").camera is None


def test_all_tensors_are_moved_and_the_original_stays_where_it_is():
    batch = batch_of_three()
    moved = batch.to("meta")
    assert {tensor.device.type for tensor in tensors_of(moved).values()} == {"meta"}
    assert {tensor.device.type for tensor in tensors_of(batch).values()} == {"cpu"}
    assert (moved.key, moved.dataset) == (batch.key, batch.dataset)
    assert {name: tensor.shape for name, tensor in tensors_of(moved).items()} == {
        name: tensor.shape for name, tensor in tensors_of(batch).items()
    }


def test_a_data_set_that_states_no_range_allows_any_value():
    dataset = DatasetInfo("street", {"depth": (1.0, 80.0)})
    assert dataset.range_of("depth") == (1.0, 80.0)
    assert dataset.range_of("normals") == ANY_VALUE == DatasetInfo("street").range_of("depth")
