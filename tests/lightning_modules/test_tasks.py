"""A task with metrics of the user's choice, through validation and test."""

import json

import numpy as np
import pytest
import torch
import yaml

import train
from geometry import modalities
from geometry.batch import DatasetInfo
from geometry.errors import InputError
from lightning_modules import Depth, Normals
from lightning_modules.losses import AngularLoss, ModalityLoss
from lightning_modules.metrics import AffineInvariantDepth, NormalsError
from lightning_modules.metrics.base import MeanError
from lightning_modules.tasks import Task
from tests.helpers.benchmark_archives import write_normals
from tests.helpers.tiny import TinyData, build_base, make_batch
from tests.lightning_modules.test_estimator import make_estimator, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


class SecondOpinion(MeanError):
    """The mean error under a name of its own, so that it stands beside the first metric."""

    def compute(self):
        return {f"second_{name}": value for name, value in super().compute().items()}


def two_metrics(modality):
    first = AffineInvariantDepth() if modality.name == "depth" else NormalsError()
    return [first, SecondOpinion(modality)]


def test_a_modality_alone_makes_a_task_with_its_own_error_as_loss_and_metric():
    task, batch = Task(modalities.Normals()), make_batch()
    prediction = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loss, extras = task.training_loss(prediction, batch)
    angle, _ = Normals(AngularLoss()).training_loss(prediction, batch)
    assert loss.item() == pytest.approx(angle.rad2deg().item(), rel=1e-5) and extras == {}
    assert (task.headline_metric, task.constant_metric) == ("mean_angle_deg", "mean_angle_deg_constant")


def test_the_own_error_of_depth_as_a_loss_is_relative_after_alignment_and_0_where_nothing_is_known():
    batch, loss = make_batch(), ModalityLoss(modalities.Depth())
    values, mask = batch.targets["depth"]
    prediction = (0.1 * values + 0.05 * batch.image[:, :1]).requires_grad_()
    metric = MeanError(modalities.Depth())
    value = loss(prediction, values, mask)
    value.backward()
    metric.update(prediction.detach(), values, mask)
    assert value.item() == pytest.approx(metric.compute()["abs_rel"].item(), rel=5e-2)  # over pixels, not over images
    assert prediction.grad.isfinite().all() and prediction.grad[mask].any()
    assert loss(prediction, values, torch.zeros_like(mask)) == 0


def test_a_batch_without_the_modality_is_refused_by_the_name_of_task_and_data_set():
    batch = make_batch(modalities=["depth"], dataset="street")
    with pytest.raises(InputError, match=r"task Normals needs normals, but data set 'street' does not deliver it"):
        Normals().target(batch)


def test_both_metrics_are_logged_for_every_validation_data_set_the_first_one_sums_up(base, tmp_path):
    estimator = make_estimator(base, Depth(metrics=two_metrics(modalities.Depth())))
    trainer = make_trainer(tmp_path)
    trainer.validate(estimator, TinyData(), verbose=False)
    assert estimator.task.headline_metric == "abs_rel"
    for index, name in enumerate(("indoor", "outdoor")):
        first, second = two_metrics(modalities.Depth())
        with torch.no_grad():
            for batch in TinyData().val_dataloader()[index]:
                estimator.task.update_metrics([first, second], estimator(batch.image), batch)
        for score, value in {**first.compute(), **second.compute()}.items():
            assert trainer.callback_metrics[f"val/{name}/{score}"].item() == pytest.approx(value.item(), rel=1e-5)
    assert "val/indoor/second_abs_rel" in trainer.callback_metrics


def test_metrics_of_data_sets_share_nothing():
    task = Normals(metrics=two_metrics(modalities.Normals()))
    one, other = (task.make_metrics(DatasetInfo(name)) for name in ("a", "b"))
    batch = make_batch()
    task.update_metrics(one, batch.image, batch)
    assert [metric.num_images.item() for metric in one] == [2, 2]
    assert [metric.num_images.item() for metric in other] == [0, 0]


def test_both_metrics_of_a_configured_task_reach_the_results_of_a_test_exactly(base, tmp_path):
    truths = write_normals(tmp_path / "data", "scannet", num_samples=2)
    for key, (truth, _) in truths.items():
        path = tmp_path / "saved/scannet" / f"{key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.moveaxis(truth + 0.2, 2, 0).astype(np.float32))
    mean_error = {"class_path": "tests.lightning_modules.test_tasks.SecondOpinion"}
    modality = {"class_path": "geometry.modalities.Normals"}
    task = {
        "class_path": "lightning_modules.Task",
        "init_args": {
            "modality": modality,
            "metrics": [
                {"class_path": "lightning_modules.metrics.NormalsError"},
                mean_error | {"init_args": {"modality": modality}},
            ],
        },
    }
    config = tmp_path / "config.yaml"
    saved = {"class_path": "lightning_modules.SavedPredictions", "init_args": {"folder": str(tmp_path / "saved")}}
    saved["init_args"]["task"] = task
    benchmarks = {"root": str(tmp_path / "data"), "num_workers": 0}
    data = {"class_path": "datamodules.Benchmarks", "init_args": benchmarks}
    config.write_text(yaml.safe_dump({"model": saved, "data": data, "trainer": {"accelerator": "cpu"}}))
    train.main(["test", "--config", str(config), f"--evaluation.output={tmp_path / 'out'}"])

    scores = json.loads((tmp_path / "out/results.json").read_text())["data_sets"]["scannet"]["scores"]
    metrics = two_metrics(modalities.Normals())
    for truth, mask in truths.values():
        values = torch.from_numpy(np.moveaxis(truth, 2, 0)[None]).float()
        for metric in metrics:
            metric.update(values + 0.2, values, torch.from_numpy(mask)[None, None])
    expected = {name: value.item() for metric in metrics for name, value in metric.compute().items()}
    assert scores.keys() == expected.keys()
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert scores["second_mean_angle_deg"] == pytest.approx(scores["mean_angle_deg_per_image"], rel=1e-5)
