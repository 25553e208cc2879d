"""Depth that is learned as a logarithm, a root or a disparity, and what is undone on the way to scores and users."""

import numpy as np
import pytest
import torch

from geometry import modalities
from geometry.batch import DatasetInfo, Target
from geometry.errors import InputError
from geometry.parameterization import Parameterization
from lightning_modules import Depth, Normals
from lightning_modules.export import ExportOptions, export_model
from lightning_modules.export.card import describe
from lightning_modules.export.programs import Program
from lightning_modules.export.verification import Agreement
from lightning_modules.inference import Predictor, load_model
from lightning_modules.losses import ModalityLoss, ScaleShiftInvariantLoss
from lightning_modules.losses.auxiliary import GradientMatching
from lightning_modules.metrics import AffineInvariantDepth, NormalsError
from lightning_modules.metrics.base import GeometryMetric, MeanError
from tests.helpers.tiny import make_batch
from tests.lightning_modules.inference.runs import make_run, photo

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = ["linear", "log", "sqrt", "disparity", "sqrt_disparity"]
UNCLIPPED = {"low_quantile": 0.0, "high_quantile": 1.0}


class MetricDepth(GeometryMetric):
    """As a newcomer would write it, without a thought of parameterisations: the mean of |p - d| after least squares."""

    headline = "error"

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("num_images", torch.tensor(0), dist_reduce_fx="sum")

    def for_dataset(self, dataset):
        return type(self)()

    def update(self, prediction, target, valid_mask):
        self.total += (prediction - target)[valid_mask].abs().mean()
        self.num_images += 1

    def compute(self):
        return {"error": self.total / self.num_images}


def perfect_prediction(task, batch, scale=1.0, shift=0.0):
    image, _ = task.target_image(batch)
    return scale * task.predict(image) + shift


def scores_of(task, prediction, batch, dataset=None):
    metrics = task.make_metrics(dataset or DatasetInfo("tiny"))
    task.update_metrics(metrics, prediction, batch)
    return [{name: value.item() for name, value in metric.compute().items()} for metric in metrics]


@pytest.mark.parametrize("name", NAMES)
class TestEveryParameterization:
    def test_a_perfect_prediction_scores_0_in_every_metric(self, name):
        metrics = [AffineInvariantDepth(), MeanError(modalities.Depth(name, **UNCLIPPED))]
        metrics += [MetricDepth()] if name != "linear" else []  # which fits nothing by itself
        task, batch = Depth(metrics=metrics, parameterization=name, **UNCLIPPED), make_batch(height=48)
        prediction = perfect_prediction(task, batch, 0.5, 0.1)
        for dataset in (None, DatasetInfo("street", {"depth": (0.5, 80.0)}, max_fit_size_px=16)):
            first, *others = scores_of(task, prediction, batch, dataset)
            assert first["abs_rel"] < 1e-5 and first["delta1"] == 1 and first["abs_rel_constant"] > 0.1
            assert all(next(iter(scores.values())) < 1e-4 for scores in others)

    def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_has_a_gradient(self, name):
        full = {"low_quantile": 0, "high_quantile": 1}
        losses = [ScaleShiftInvariantLoss(**full), ModalityLoss(modalities.Depth(name, **UNCLIPPED))]
        for loss in losses:
            task = Depth(loss, [GradientMatching()][: loss is losses[0]], parameterization=name, **UNCLIPPED)
            batch = make_batch()
            perfect = perfect_prediction(task, batch)
            assert task.training_loss(perfect, batch)[0] < 1e-5
            wrong = (perfect + 0.2 * batch.image[:, :1]).requires_grad_()
            loss_of_wrong, _ = task.training_loss(wrong, batch)
            loss_of_wrong.backward()
            assert loss_of_wrong > 1e-3 and wrong.grad.isfinite().all()
            assert (wrong.grad[batch.targets["depth"].mask] != 0).float().mean() > 0.9

    def test_panels_show_a_perfect_prediction_as_the_truth(self, name):
        task, batch = Depth(parameterization=name, **UNCLIPPED), make_batch()
        shown, truth, _ = task.visualize(perfect_prediction(task, batch), batch)
        known = batch.targets["depth"].mask.expand_as(truth)
        assert (shown - truth)[known].abs().max() < 1e-3


def test_the_fit_has_two_numbers_in_the_space_of_the_parameterisation():
    batch, metric = make_batch(1), AffineInvariantDepth().for_modality(modalities.Depth("log", eps_m=0.0))
    values, mask = batch.targets["depth"]
    prediction = torch.where(mask, values, 1.0).log() + 0.3 * batch.image[:, :1]
    p, d = prediction[mask].double().numpy(), values[mask].double().numpy()
    slope, offset = np.polyfit(p, np.log(d), 1)
    metric.update(prediction, values, mask)
    expected = np.mean(np.abs(np.exp(slope * p + offset) - d) / d)
    assert metric.compute()["abs_rel"].item() == pytest.approx(expected, rel=1e-5)


def test_linear_depth_is_what_it_was_to_the_bit():
    """The former formulas, written out: of the target image and of the alignment."""
    batch, modality = make_batch(), modalities.Depth()
    target = batch.targets["depth"]
    assert modality.as_predicted(target) is target and modality.undo(target.values, target) is target.values
    prediction = modality.from_image(modality.to_image(target))
    assert modality.to_affine(prediction) is prediction and modality.stretch(prediction, 3.0) is prediction
    assert torch.equal(modality.publish(prediction), (prediction + 1) / 2)
    assert Parameterization().undo(prediction) is prediction


def test_the_logarithm_that_is_learned_is_that_of_marigold_v2():
    """Equation 1 there: d = 2 ((log(D + eps) - q2) / (q98 - q2) - 1/2), quantiles of the logarithms, clipped."""
    batch = make_batch(1)
    values, mask = batch.targets["depth"]
    log = np.log(values[mask].double().numpy() + 1e-3)
    low, high = np.quantile(log, [0.02, 0.98])
    expected = np.clip(2 * ((log - low) / (high - low) - 0.5), -1, 1)
    image = modalities.Depth("log", eps_m=1e-3).to_image(Target(values, mask))
    np.testing.assert_allclose(image[:, :1][mask].numpy(), expected, atol=1e-5)


def test_a_metric_of_depth_refuses_another_modality():
    with pytest.raises(InputError, match="AffineInvariantDepth measures depth, but the task predicts surface normals"):
        Normals(metrics=[AffineInvariantDepth(), NormalsError()]).make_metrics(DatasetInfo("tiny"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    options = {"parameterization": "log", "far_over_near": 20.0}
    return {
        "log": make_run(folder / "log", task_options=options),
        "disparity": make_run(folder / "disparity", task_options={"parameterization": "disparity"}),
    }


def test_predict_undoes_the_logarithm(runs):
    predictor = Predictor.load(runs["log"], processing_res=0)
    image = photo(32, 48)
    with torch.no_grad():
        raw = predictor.estimator(torch.from_numpy(image).movedim(-1, 0)[None] / 127.5 - 1)[0, 0].numpy()
    share = (raw + 1) / 2
    np.testing.assert_allclose(predictor(image), (20**share - 1) / 19, atol=1e-5)


def test_near_stays_0_and_far_1_where_disparity_is_learned(runs):
    predictor = Predictor.load(runs["disparity"], processing_res=0)
    image = photo(32, 48)
    with torch.no_grad():
        raw = predictor.estimator(torch.from_numpy(image).movedim(-1, 0)[None] / 127.5 - 1)[0, 0].numpy()
    assert np.corrcoef(raw.ravel(), predictor(image).ravel())[0, 1] < -0.9


def test_tiles_are_aligned_before_the_logarithm_is_undone(runs):
    tiled = Predictor.load(runs["log"], processing_res=0, tile_size=32)
    image = photo(60, 150)
    corner, alone = (found[:14, :24] for found in (tiled(image), tiled(image[:32, :32])))
    first, second = (tiled.modality.to_affine(torch.from_numpy(part)).ravel() for part in (corner, alone))
    assert torch.corrcoef(torch.stack([first, second]))[0, 1] > 0.99999


def test_a_program_undoes_what_predict_undoes_and_its_card_says_so(runs):
    model, image = load_model(runs["log"]), photo(32, 48)
    program = Program(model.estimator, torch.float32).eval()
    with torch.no_grad():
        found = program(torch.from_numpy(image).movedim(-1, 0)[None] / 255)[0, 0].numpy()
    expected = Predictor(model.estimator, processing_res=0, tile_size=0)(image)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    record = describe(model, "torch", "float32", [Agreement(1, 0.0, 0.0)])
    assert "predicts depth as log" in record.meaning and "20 times as far" in record.meaning


@pytest.mark.slow
@pytest.mark.parametrize("name", ["log", "disparity"])
def test_a_traced_program_agrees_with_its_checkpoint(runs, tmp_path, name):
    record = export_model(load_model(runs[name]), ExportOptions(tmp_path / "program", "torch"))
    assert record.agreement.maximum < 1e-4
    assert f"predicts depth as {name}" in (tmp_path / "program/README.md").read_text()


def test_stock_diffusers_is_refused_in_one_line_for_it_undoes_nothing(runs, tmp_path):
    with pytest.raises(InputError, match=r"MarigoldDepthPipeline does not undo parameterization: log; export it with"):
        export_model(load_model(runs["log"]), ExportOptions(tmp_path / "stock"))
    assert not (tmp_path / "stock").exists()
