import inspect

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import DatasetSource, GeometryDataModule
from geometry.errors import InputError
from tests.helpers.planes import make_dataset


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "a", "a", {"train": [5, 4, 6, 5], "val": [5]})
    make_dataset(folder / "b", "b", {"train": [3, 2, 4]}, size=(8, 24))
    make_dataset(folder / "c", "c", {"train": [3], "val": [2]}, normals=False)
    return folder


def sources(folders, names="ab"):
    return [DatasetSource(str(folders / name), weight) for name, weight in zip(names, (3, 1), strict=False)]


pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
]


class Recorder(LightningModule):
    """Adds up what it sees, so that its weight depends on every batch; remembers the keys."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], []

    def training_step(self, batch):
        self.seen.append((batch.dataset.name, *batch.key))
        return self.weight * batch.targets["depth"].values.mean() + batch.image[:, 0, 0, 0].mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.validated.append((batch.dataset.name, *batch.key))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, data, max_steps, ckpt_path=None, checkpoint_every=1000, **options):
    checkpoints = ModelCheckpoint(folder, every_n_train_steps=checkpoint_every, save_top_k=-1, filename="{step}")
    model = Recorder()
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **options,
    }
    trainer = Trainer(max_steps=max_steps, callbacks=[checkpoints], num_sanity_val_steps=0, **options)
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return model


@pytest.mark.parametrize("num_workers", [0, 2])
def test_lightning_resumes_a_killed_run_to_the_same_weights(folders, tmp_path, num_workers):
    def data():
        return GeometryDataModule(
            sources(folders), num_workers=num_workers, batches_per_epoch=7, modalities=["depth", "normals"]
        )

    whole = fit(tmp_path / "whole", data(), 16, accumulate_grad_batches=2)
    fit(tmp_path / "killed", data(), 5, checkpoint_every=5, accumulate_grad_batches=2)
    checkpoint = tmp_path / "killed" / "step=5.ckpt"
    state = torch.load(checkpoint, weights_only=True)["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    # The last batch of an epoch ends an accumulation: 7 batches make 4 updates, the fifth ends after batch 9.
    assert state[0]["micro_step"] == 9
    resumed = fit(tmp_path / "resumed", data(), 16, ckpt_path=checkpoint, accumulate_grad_batches=2)
    assert resumed.seen == whole.seen[len(whole.seen) - len(resumed.seen) :]
    assert len(resumed.seen) == len(whole.seen) - state[0]["micro_step"]
    assert torch.equal(resumed.weight, whole.weight)
    assert (
        resumed.validated[-3:]
        == whole.validated[-3:]
        == [("a", f"val-{i:04d}", f"val-{i + 1:04d}") for i in (0, 2)] + [("a", "val-0004")]
    )


def test_lightning_leaves_our_loaders_as_they_are(folders, tmp_path):
    data = GeometryDataModule(sources(folders), num_workers=0)
    model = fit(tmp_path, data, 4, limit_val_batches=0)
    assert len(model.seen) == 4
    assert {len(seen) for seen in model.seen} == {3}


def test_datasets_can_be_written_in_yaml(folders):
    parser = ArgumentParser()
    parser.add_class_arguments(GeometryDataModule, "data")
    config = parser.parse_string(f"data: {{datasets: [{{path: {folders}/a, weight: 9}}, {{path: {folders}/b}}]}}")
    data = parser.instantiate(config).data
    data.setup("fit")
    assert [source.weight for source in data.datasets] == [9, 1]


def test_a_data_set_may_be_given_in_python_as_in_a_configuration(folders):
    given = {"path": str(folders / "a"), "weight": 3.0}
    data = GeometryDataModule([given], val_datasets=[given])
    assert data.datasets == data.val_datasets == [DatasetSource(**given)]
    for wrong in ({"folder": "a"}, {"weight": 3.0}, str(folders / "a")):
        with pytest.raises(InputError, match=r"data\.datasets holds .*; give each a path and, if need be, weight"):
            GeometryDataModule([wrong])


def test_every_option_has_a_sentence_of_help():
    parser = ArgumentParser()
    parser.add_class_arguments(GeometryDataModule, "data")
    helps = {action.dest: action.help for action in parser._actions}
    for name in inspect.signature(GeometryDataModule).parameters:
        assert len((helps[f"data.{name}"] or "").split()) > 4, name


def test_validation_defaults_to_the_val_splits_that_exist(folders):
    data = GeometryDataModule(sources(folders), num_workers=0)
    data.setup("fit")
    assert [dataset.name for dataset in data.val_dataset_infos] == ["a"]
    assert data.image_sizes == {"a": (12, 16), "b": (8, 24)}
    assert data.train_image_sizes == {(12, 16), (8, 24)}
    assert [len(loader) for loader in data.val_dataloader()] == [3]


def test_an_epoch_is_as_long_as_all_training_data(folders):
    data = GeometryDataModule(sources(folders), batch_size=3, num_workers=0)
    data.setup("fit")
    assert len(data.train_dataloader()) == 29 // 3


def test_a_batch_holds_one_data_set_of_one_size(folders):
    data = GeometryDataModule(sources(folders), num_workers=0)
    data.setup("fit")
    sizes = {(batch.dataset.name, tuple(batch.image.shape[2:])) for batch in data.train_dataloader()}
    assert sizes == {("a", (12, 16)), ("b", (8, 24))}


def test_validating_needs_no_training_split(folders):
    data = GeometryDataModule([], [DatasetSource(str(folders / "b"), split="train", name="b-train")], num_workers=0)
    data.setup("validate")
    assert [dataset.name for dataset in data.val_dataset_infos] == ["b-train"]


def test_more_ranks_than_validation_batches_are_no_error(folders):
    # Lightning asks the data module whether a loader may be empty on some rank.
    assert GeometryDataModule(sources(folders)).allow_zero_length_dataloader_with_multiple_devices


def test_normals_that_a_data_set_lacks_are_missed_before_training(folders):
    with pytest.raises(InputError, match=r"'c' .*no normals, which the task needs"):
        GeometryDataModule(sources(folders, "ac"), modalities=["depth", "normals"]).setup("fit")


def test_two_data_sets_of_one_name_are_refused(folders):
    with pytest.raises(InputError, match="two data sets are named 'a'"):
        GeometryDataModule(sources(folders, "aa")).setup("fit")


def test_a_split_that_was_named_and_is_missing_is_refused(folders):
    with pytest.raises(InputError, match="no samples in the split 'val'; splits with samples: train"):
        GeometryDataModule(sources(folders), sources(folders, "b")).setup("fit")


def test_a_folder_that_is_no_data_set_is_refused(folders):
    with pytest.raises(InputError, match=r"dataset\.json"):
        GeometryDataModule([DatasetSource(str(folders))]).setup("fit")


@pytest.mark.parametrize(
    "option",
    [{"batch_size": 0}, {"num_workers": -1}, {"horizontal_flip": 1.5}, {"max_streams": 5}, {"shuffle_buffer": 0}],
)
def test_an_option_out_of_range_is_named(folders, option):
    with pytest.raises(InputError, match=f"data.{next(iter(option))} "):
        GeometryDataModule(sources(folders), **option).setup("fit")


@pytest.mark.parametrize("weight", [0, -1, float("nan")])
def test_a_weight_that_is_no_share_is_refused(folders, weight):
    with pytest.raises(InputError, match="weight"):
        GeometryDataModule([DatasetSource(str(folders / "a"), weight)]).setup("fit")
