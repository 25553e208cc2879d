import pytest
import torch

from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.loading import Workers
from datamodules.streaming.train_order import OpenSource
from datamodules.streaming.val_loader import ValLoader
from geometry.errors import InputError
from tests.helpers.planes import make_dataset

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("planes"), shards={"val": [3, 4, 4]})


def loader_of(dataset, batch_size=2, max_samples=None, rank=0, world_size=1, num_workers=0):
    assembler = BatchAssembler("planes", dataset.manifest, ("depth",))
    return ValLoader(
        OpenSource(dataset, assembler, 1.0, "val"), batch_size, max_samples, Workers(rank, world_size, num_workers)
    )


def keys_of(loader):
    return [batch.key for batch in loader]


def test_all_samples_come_once_in_stored_order(dataset):
    keys = keys_of(loader_of(dataset))
    assert [key for batch in keys for key in batch] == [f"val-{i:04d}" for i in range(11)]
    assert [len(batch) for batch in keys] == [2, 2, 2, 2, 2, 1] and len(loader_of(dataset)) == 6


def test_every_validation_sees_the_same_images_unflipped(dataset):
    loader = loader_of(dataset)
    first, second = list(loader), list(loader)
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    assert all((batch.image[:, 0, 0, 0] < batch.image[:, 0, 0, -1]).all() for batch in first)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_number_of_workers_changes_nothing(dataset, num_workers):
    loader = loader_of(dataset, num_workers=num_workers)
    assert keys_of(loader) == keys_of(loader_of(dataset))
    next(iter(loader))  # an abandoned pass, as the trainer's sanity check leaves behind
    assert keys_of(loader) == keys_of(loader_of(dataset))


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_share_the_batches_without_repeating_one(dataset, world_size):
    ranks = [loader_of(dataset, rank=rank, world_size=world_size) for rank in range(world_size)]
    shared = [keys_of(loader) for loader in ranks]
    # Lightning leaves a rank whose loaders are empty out of the validation, and the others wait for its sums for ever.
    assert [len(loader) for loader in ranks] == [max(1, len(batches)) for batches in shared]
    assert sorted(key for batches in shared for batch in batches for key in batch) == [
        f"val-{i:04d}" for i in range(11)
    ]
    assert shared[1][0] == ["val-0002", "val-0003"]


def test_a_subset_is_spread_over_the_split(dataset):
    assert keys_of(loader_of(dataset, max_samples=3)) == [["val-0001", "val-0005"], ["val-0009"]]


def test_a_bad_sample_is_named(tmp_path):
    dataset = make_dataset(tmp_path, shards={"val": [3]})
    (tmp_path / "val/planes-val-000000.tar").unlink()
    with pytest.raises(InputError, match=r"planes-val-000000\.tar"):
        list(loader_of(dataset, num_workers=1))
