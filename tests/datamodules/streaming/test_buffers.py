import torch

from datamodules import DatasetSource, GeometryDataModule
from datamodules.streaming import buffers
from datamodules.streaming.buffers import BufferPool, Lent, forget_processes, give_back
from datamodules.streaming.packing import PackedBatch
from tests.helpers.planes import make_dataset


def test_a_piece_is_used_again_only_when_it_was_given_back():
    pool = BufferPool()
    first, lent = pool.take(1000)
    second, _ = pool.take(1000)
    assert first.data_ptr() != second.data_ptr()
    give_back(first, lent)
    again, again_lent = pool.take(900)
    assert (again.data_ptr(), again_lent) == (first.data_ptr(), lent)
    third, _ = pool.take(1000)
    assert third.data_ptr() not in (first.data_ptr(), second.data_ptr())
    forget_processes({lent.process})


def test_a_larger_batch_replaces_the_pieces_that_are_too_small():
    pool = BufferPool()
    piece, lent = pool.take(100)
    give_back(piece, lent)
    larger, _ = pool.take(100_000)
    assert len(larger) > 100_000 and len(pool._pieces) == 1
    forget_processes({lent.process})


def test_pieces_that_nobody_gives_back_are_not_kept_without_end():
    pool = BufferPool()
    lents = [pool.take(64)[1] for _ in range(200)]
    assert len(pool._pieces) == sum(lent is not None for lent in lents) <= 32


def loader_of(folder, num_workers=1):
    make_dataset(folder, "a", {"train": [6, 6], "val": [4]})
    data = GeometryDataModule([DatasetSource(str(folder))], batch_size=2, num_workers=num_workers, batches_per_epoch=40)
    data.setup("fit")
    return data


def test_a_loader_process_makes_forty_batches_in_a_handful_of_pieces(tmp_path, monkeypatch):
    lents, land = [], PackedBatch.landed
    monkeypatch.setattr(PackedBatch, "landed", lambda batch: (lents.append(batch.lent), land(batch))[1])
    data = loader_of(tmp_path)
    for _ in data.train_dataloader():
        pass
    data.teardown("fit")
    assert len(lents) == 40 and all(isinstance(lent, Lent) for lent in lents)
    assert len(set(lents)) <= 5  # two prepared ahead, one in the making, one being copied


def test_batches_that_are_kept_are_not_overwritten(tmp_path):
    data = loader_of(tmp_path)
    kept = list(data.train_dataloader())
    expected = [batch.image.clone() for batch in data.val_dataloader()[0]]
    data.teardown("fit")
    alone = loader_of(tmp_path / "again", num_workers=0)
    for batch, other in zip(kept, alone.train_dataloader(), strict=True):
        assert batch.key == other.key and torch.equal(batch.image, other.image)
    for image, other in zip(expected, alone.val_dataloader()[0], strict=True):
        assert torch.equal(image, other.image)


def test_memory_of_loader_processes_that_ended_is_given_up(tmp_path):
    before = set(buffers._known)  # of loaders that nobody has closed
    data = loader_of(tmp_path)
    next(iter(data.train_dataloader()))
    assert before < buffers._known.keys()
    data.teardown("fit")
    assert before == buffers._known.keys()
