"""The demo's data is made once, whole or not at all."""

import pytest

from geometry.errors import InputError
from synthetic_scenes import SyntheticDataModule, datamodule


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    monkeypatch.setattr(datamodule, "_ROOM_SIZE", (24, 32))
    monkeypatch.setattr(datamodule, "_STREET_SIZE", (32, 112))
    monkeypatch.setattr(datamodule.os, "cpu_count", lambda: 1)  # starting processes costs more than it saves


def test_data_is_made_on_the_first_run_and_kept_for_the_next(tmp_path, monkeypatch):
    data = SyntheticDataModule(cache=str(tmp_path), rooms=20, streets=10, batch_size=2, modalities=["depth", "normals"])
    data.prepare_data()
    data.setup("fit")
    assert [dataset.name for dataset in data.val_dataset_infos] == ["rooms", "streets"]
    batch = next(iter(data.val_dataloader()[0]))
    assert batch.image.shape == (2, 3, 24, 32) and batch.targets["normals"].mask.any()
    monkeypatch.setattr(datamodule.SyntheticDataModule, "_make", lambda *_: pytest.fail("made again"))
    SyntheticDataModule(cache=str(tmp_path), rooms=20, streets=10).prepare_data()


def test_an_interrupted_first_run_leaves_nothing_that_the_next_would_trust(tmp_path, monkeypatch):
    data = SyntheticDataModule(cache=str(tmp_path), rooms=20, streets=0)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(datamodule, "prepare_dataset", interrupted)
        data.prepare_data()
    assert not list(tmp_path.iterdir()), "the next run makes everything anew"


def test_too_little_data_to_hold_some_out_is_refused():
    with pytest.raises(InputError, match=r"data\.rooms"):
        SyntheticDataModule(rooms=3)


def test_rooms_come_with_what_the_task_asks_for_in_a_place_of_their_own(tmp_path):
    data = SyntheticDataModule(cache=str(tmp_path), rooms=20, batch_size=2, modalities=["albedo"])
    data.prepare_data()
    data.setup("fit")
    assert next(iter(data.val_dataloader()[0])).targets["albedo"].mask.any()
    assert data.folders["rooms"] != SyntheticDataModule(cache=str(tmp_path), rooms=20).folders["rooms"]
    with pytest.raises(InputError, match=r"have no albedo; set data\.streets to 0"):
        SyntheticDataModule(rooms=20, streets=10, modalities=["albedo"])
