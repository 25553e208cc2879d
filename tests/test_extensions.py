"""What CONTRIBUTING says one may add, added from outside the packages, all at once: nothing of them is touched.

A data set of a new modality is prepared; a network of a family from elsewhere (``test_other_family``) is trained on it
by a loss from elsewhere, validated by a metric from elsewhere, and predicts.
"""

import contextlib

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from datamodules.sources import registry
from datamodules.sources.protocol import FrameList, PreparedSample
from geometry.modalities import Modality, modality_named
from lightning_modules.inference import Predictor
from lightning_modules.inference.run_config import last_scores
from lightning_modules.losses.base import Loss
from lightning_modules.metrics.base import GeometryMetric
from lightning_modules.training.run_folders import newest_run
from tests.lightning_modules.inference.runs import photo

pytestmark = pytest.mark.filterwarnings("ignore")

SIZE = (32, 40)


class Matte(Modality):
    """How much of a pixel a person covers, stored from 1 for nothing to 2 for all."""

    name = "matte_of_a_test"
    title = "mattes"
    num_channels = 1
    meaning = "share of a pixel that a person covers"

    def to_image(self, target):
        return torch.where(target.mask, 2 * target.values - 3, -1.0).expand(-1, 3, -1, -1)

    def from_image(self, decoded):
        return decoded.float().mean(dim=1, keepdim=True) / 2 + 1.5

    def publish(self, prediction):
        return (prediction - 1).clamp(0, 1)

    def colorize(self, values, mask=None, limits=None):
        return (values - 1).clamp(0, 1).expand(-1, 3, -1, -1)


class People:
    """A data set whose frames are numbers: a disc of a person's brightness on a background of another."""

    name = "people"
    image_size = SIZE
    modalities = ("matte_of_a_test",)
    ranges = {}  # noqa: RUF012

    def __init__(self, brightness):
        self.brightness = brightness

    def options(self):
        return {"brightness": self.brightness}

    def list_frames(self):
        return FrameList({"train": [Numbered(number) for number in range(6)], "val": [Numbered(6), Numbered(7)]})

    def load(self, frame):
        rows, columns = np.indices(SIZE)
        disc = (rows - 16) ** 2 + (columns - 8 - 3 * frame.number) ** 2 < 80
        image = np.where(disc[..., None], self.brightness, 60).astype(np.uint8).repeat(3, axis=2)
        return PreparedSample(image, {"matte_of_a_test": 1 + disc.astype(np.float32)}, None, 0.5, {})


def people(brightness: int, name: str = "people") -> People:
    """Prepare people who are discs.

    Args:
        brightness: Of a disc.
        name: Name in logs.
    """
    return People(brightness)


class Numbered:
    def __init__(self, number):
        self.number, self.key = number, f"person-{number}"


class EdgeAware(Loss):
    """A matte is to change where the image does: it sees the image of the batch."""

    name = "edge_aware"

    def forward(self, prediction, target, valid_mask):
        raise AssertionError("this loss sees all of its inputs")

    def of(self, inputs):
        edges = inputs.batch.image.diff(dim=3).abs().mean(dim=1, keepdim=True)
        return (inputs.prediction.diff(dim=3).abs() * torch.exp(-edges)).mean()


class Covered(GeometryMetric):
    """How far the covered share of an image is off."""

    headline = "covered_error"

    def __init__(self):
        super().__init__()
        self.add_state("num_images", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("errors", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, prediction, target, valid_mask):
        self.num_images += len(prediction)
        self.errors += (prediction - target).mean(dim=(1, 2, 3)).abs().sum()

    def compute(self):
        return {"covered_error": self.errors / self.num_images}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extensions")
    here = "tests.test_extensions"
    train.main(["prepare", f"{here}.people", "--brightness", "200", "--output", str(folder / "shards")])
    task = {
        "modality": f"{here}.Matte",
        "extra_losses": [{"class_path": f"{here}.EdgeAware", "init_args": {"weight": 0.5}}],
        "metrics": [f"{here}.Covered"],
    }
    model = {
        "network": "tests.lightning_modules.networks.test_other_family.TinyFlow",
        "task": {"class_path": "lightning_modules.Task", "init_args": task},
    }
    data = {"datasets": [{"path": str(folder / "shards")}], "batch_size": 2, "num_workers": 0, "val_num_workers": 0}
    trainer = {"accelerator": "cpu", "max_steps": 2, "val_check_interval": 2, "log_every_n_steps": 1}
    content = {
        "name": "people",
        "model": {"class_path": "lightning_modules.SingleStepEstimator", "init_args": model},
        "data": {"class_path": "datamodules.GeometryDataModule", "init_args": data},
        "trainer": {**trainer, "enable_progress_bar": False, "default_root_dir": str(folder / "runs")},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    train.main(["fit", "--config", str(folder / "config.yaml")])
    return newest_run(folder / "runs/people")


def test_a_run_of_parts_from_elsewhere_is_trained_by_their_loss_and_validated_by_their_metric(run):
    _, scores = last_scores(run)
    curves = EventAccumulator(str(run), {"scalars": 0}).Reload()
    assert all(0 < event.value < 10 for event in curves.Scalars("train/edge_aware"))
    assert scores.keys() == {"val/people/covered_error"} and 0 < scores["val/people/covered_error"] < 1


def test_a_data_set_that_is_registered_is_a_command_with_its_options(capsys, monkeypatch):
    monkeypatch.setattr(registry, "_FACTORIES", registry.raw_datasets())
    registry.raw_dataset(people)
    for words, said in ((["--help"], "people"), (["people", "--help"], "--brightness")):
        with pytest.raises(SystemExit) if "people" in words else contextlib.nullcontext():
            train.main(["prepare", *words])
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("path", ["no.such.module", "tests.test_extensions.nobody", "tests..people"])
def test_a_data_set_that_is_not_there_is_one_line(path, capsys):
    with pytest.raises(SystemExit, match="2"):
        train.main(["prepare", path, "--brightness", "200"])
    assert capsys.readouterr().err.startswith(f"error: {path} is no data set: ")


def test_its_checkpoint_predicts_what_the_modality_publishes(run):
    prediction = Predictor.load(run, processing_res=0, device="cpu")(photo(*SIZE))
    assert modality_named("matte_of_a_test") is Matte
    assert prediction.shape == SIZE and 0 <= prediction.min() < prediction.max() <= 1
