import csv
import math
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

from geometry.batch import DatasetInfo
from geometry.errors import InputError
from lightning_modules import Depth, Normals, SingleStepEstimator, StableDiffusion
from lightning_modules.schedules import warmup_exponential
from lightning_modules.training.checkpoints import Checkpoints
from tests.helpers.tiny import TinyData, build_base, make_batch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


def make_estimator(base, task=None, noise="zeros", **options):
    return SingleStepEstimator(StableDiffusion(str(base), noise), task or Depth(), **options)


def make_trainer(folder, max_steps=3, callbacks=(), **options):
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "check_val_every_n_epoch": None,
        "val_check_interval": 1000,
        "log_every_n_steps": 1,
    }
    checkpoints = Checkpoints(every_n_steps=1000, folder=str(folder))
    return Trainer(max_steps=max_steps, callbacks=[checkpoints, *callbacks], **(defaults | options))


def trained_weights(estimator):
    return torch.cat([p.detach().flatten() for p in estimator.network.unet.parameters()])


class Recorder(Callback):
    """Keeps what is logged at every micro-batch, and the loss that the progress bar shows before it."""

    def __init__(self):
        self.steps, self.bar_losses = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.bar_losses.append(float(pl_module.bar_values.get("loss", torch.nan)))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append({key: value.item() for key, value in trainer.callback_metrics.items()})


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    estimator = make_estimator(base, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True))
    make_trainer(folder).fit(estimator, TinyData())
    return estimator, folder / "last.ckpt"


class TestCheckpoints:
    def test_a_checkpoint_holds_only_what_trains_and_needs_no_pickle(self, trained):
        estimator, file = trained
        checkpoint = torch.load(file, weights_only=True)
        expected = {f"network.unet.{name}" for name, _ in estimator.network.unet.named_parameters()}
        assert checkpoint["state_dict"].keys() == expected
        assert "hyper_parameters" not in checkpoint

    def test_a_checkpoint_brings_the_trained_weights_back(self, base, trained, tmp_path):
        estimator, file = trained
        fresh = make_estimator(base)
        assert not torch.equal(trained_weights(fresh), trained_weights(estimator))
        make_trainer(tmp_path).validate(fresh, TinyData(), ckpt_path=file, weights_only=True, verbose=False)
        assert torch.equal(trained_weights(fresh), trained_weights(estimator))

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda weights: weights.pop("network.unet.conv_in.bias"), r"lacks 1 weights \(network.unet.conv_in.bias"),
            (lambda weights: weights.update(other=torch.zeros(1)), r"has no place for 1 weights \(other"),
            (
                lambda weights: weights.update({"network.unet.conv_in.weight": torch.zeros(8, 4, 3, 3)}),
                r"has in another shape 1 weights \(network.unet.conv_in.weight",
            ),
        ],
    )
    def test_a_checkpoint_that_does_not_fit_is_refused_not_half_loaded(self, base, trained, tmp_path, spoil, message):
        checkpoint = torch.load(trained[1], weights_only=True)
        spoil(checkpoint["state_dict"])
        torch.save(checkpoint, tmp_path / "spoilt.ckpt")
        estimator = make_estimator(base)
        before = trained_weights(estimator)
        with pytest.raises(InputError, match=message):
            make_trainer(tmp_path).validate(estimator, TinyData(), ckpt_path=tmp_path / "spoilt.ckpt", verbose=False)
        assert torch.equal(trained_weights(estimator), before)


@pytest.mark.parametrize("noise", ["zeros", "gaussian"])
def test_a_resumed_run_ends_with_the_same_weights_as_an_undisturbed_one(base, tmp_path, noise):
    weights = []
    for stops in ([7], [3, 7]):
        checkpoint = None
        for stop in stops:
            seed_everything(1, verbose=False)
            # Four batches an epoch: the run is cut in the first epoch and ends in the second.
            estimator = make_estimator(base, noise=noise, decay_steps=7, warmup_steps=2)
            folder = tmp_path / f"{len(stops)}"
            make_trainer(folder, max_steps=stop, deterministic=True).fit(
                estimator, TinyData(num_batches=4), ckpt_path=checkpoint, weights_only=True
            )
            checkpoint = folder / "last.ckpt"
        weights.append(trained_weights(estimator))
    assert torch.equal(*weights)


def test_the_step_logs_what_a_person_watches(base, tmp_path):
    recorder = Recorder()
    estimator = make_estimator(base, warmup_steps=2, decay_steps=6)
    make_trainer(tmp_path, max_steps=4, callbacks=[recorder]).fit(estimator, TinyData())
    for number, logged in enumerate(recorder.steps):
        assert logged["train/lr"] == pytest.approx(3e-5 * warmup_exponential(number, 2, 6), rel=1e-5)
        assert logged["train/loss"] > 0
        assert logged["train/grad_norm"] > 0
        assert logged["train/skipped_steps"] == 0
        assert 0 <= logged["train/negative_scale_share"] <= 1


def test_the_decay_ends_with_the_run_unless_told_otherwise(base, tmp_path):
    recorder = Recorder()
    make_trainer(tmp_path, max_steps=3, callbacks=[recorder]).fit(make_estimator(base, warmup_steps=1), TinyData())
    expected = [3e-5 * warmup_exponential(step, 1, 3) for step in range(3)]
    assert [logged["train/lr"] for logged in recorder.steps] == pytest.approx(expected, rel=1e-5)


def test_accumulated_batches_count_as_one_step_and_their_mean_loss_is_logged(base, tmp_path):
    recorder = Recorder()
    estimator = make_estimator(base)
    with torch.no_grad():
        data = TinyData(num_batches=2).train_dataloader()
        losses = [estimator.training_loss(batch, [0, 0])[0].item() for batch in data]
    make_trainer(tmp_path, max_steps=1, callbacks=[recorder], accumulate_grad_batches=2).fit(estimator, TinyData(2))
    assert recorder.steps[-1]["train/loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert recorder.steps[-1]["train/lr"] == pytest.approx(3e-5 / 100, rel=1e-5)


def logged_values(logger, name):
    """What a CSV logger wrote under a name, by step."""
    rows = csv.DictReader((Path(logger.log_dir) / "metrics.csv").open())
    return {int(row["step"]): float(row[name]) for row in rows if row[name]}


class OneBatchFromElsewhere(Callback):
    """Lets the first batch come from a data set that no later one comes from."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        batch.dataset = DatasetInfo("elsewhere" if batch_idx == 0 else "here")


def test_the_loss_of_a_data_set_is_logged_only_when_a_batch_came_from_it(base, tmp_path):
    logger = CSVLogger(tmp_path)
    trainer = make_trainer(tmp_path, callbacks=[OneBatchFromElsewhere()], logger=logger)
    trainer.fit(make_estimator(base), TinyData(3))
    assert logged_values(logger, "train/loss_elsewhere").keys() == {0}
    assert logged_values(logger, "train/loss_here").keys() == {1, 2}


class Poison(Callback):
    """Spoils the images of some micro-batches."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx in self.numbers:
            batch.image[0, 0, 0, 0] = torch.nan


def test_a_bad_batch_is_skipped_named_and_leaves_no_trace_in_the_weights(base, tmp_path):
    estimator = make_estimator(base)
    with pytest.warns(UserWarning, match=r"step 1 skipped.*tiny: sample-1002-0, sample-1002-1"):
        make_trainer(tmp_path, callbacks=[Poison(1)]).fit(estimator, TinyData())
    assert estimator.gradient_guard.num_skipped == 1
    assert trained_weights(estimator).isfinite().all()


@pytest.mark.filterwarnings("ignore:step")
def test_bad_batches_in_a_row_end_the_run_with_an_error(base, tmp_path):
    estimator = make_estimator(base, max_skips_in_a_row=2)
    with pytest.raises(InputError, match="2 steps in a row"):
        make_trainer(tmp_path, max_steps=4, callbacks=[Poison(1, 2)]).fit(estimator, TinyData())
    assert trained_weights(estimator).isfinite().all()


@pytest.mark.filterwarnings("ignore:step")
def test_a_loss_that_is_not_finite_is_skipped_even_if_its_gradient_is_finite(base, tmp_path, monkeypatch):
    def infinite_loss(self, batch, seeds):
        return self(batch.image, seeds).sum() + torch.inf, {}

    monkeypatch.setattr(SingleStepEstimator, "training_loss", infinite_loss)
    estimator = make_estimator(base)
    before = trained_weights(estimator)
    make_trainer(tmp_path, max_steps=2).fit(estimator, TinyData())
    assert torch.equal(trained_weights(estimator), before)


def test_half_precision_trains_resumes_and_validates_like_float32(base, tmp_path):
    def precision(name):
        if name != "fp16":
            return {"precision": name}
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)  # Lightning makes one on GPUs alone
        return {"plugins": [MixedPrecision("16-mixed", device="cpu", scaler=scaler)]}

    seen = {}
    for name in ("32-true", "bf16-mixed", "fp16"):
        recorder, checkpoint = Recorder(), None
        for stop in (1, 2):
            estimator = make_estimator(base, warmup_steps=0)
            before = trained_weights(estimator)
            trainer = make_trainer(tmp_path / name, stop, [recorder], val_check_interval=stop, **precision(name))
            trainer.fit(estimator, TinyData(size=16), ckpt_path=checkpoint, weights_only=True)
            checkpoint = tmp_path / name / "last.ckpt"
        moved = trained_weights(estimator) - before
        assert moved.dtype == torch.float32
        assert recorder.steps[-1]["train/skipped_steps"] == 0
        score = trainer.callback_metrics["val/indoor/abs_rel"].item()
        seen[name] = (*(recorder.steps[-1][f"train/{key}"] for key in ("loss", "grad_norm")), score, moved)
    loss, norm, score, moved = seen.pop("32-true")
    for name, half in seen.items():
        assert half[0] == pytest.approx(loss, rel=0.02), name
        # bfloat16 is 0.104 off on a processor without instructions for it.
        assert half[1] == pytest.approx(norm, rel=0.2), name
        assert half[2] == pytest.approx(score, rel=0.02), name
        assert torch.cosine_similarity(half[3], moved, dim=0) > 0.8, name


class TwoSources(TinyData):
    """Three batches indoors, one outdoors, again and again."""

    def train_dataloader(self):
        return DataLoader([make_batch(dataset=name) for name in (*["indoor"] * 3, "outdoor")], None)


def test_losses_are_means_since_the_last_log_in_all_and_by_data_set(base, tmp_path):
    recorder = Recorder()
    estimator = make_estimator(base, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    estimator.training_loss = lambda batch, seeds: (  # type: ignore[method-assign]
        estimator.network.unet.conv_in.bias.sum() * 0 + (1.0 if batch.dataset.name == "indoor" else 5.0),
        {},
    )
    options = {"log_every_n_steps": 2, "accumulate_grad_batches": 2, "logger": CSVLogger(tmp_path)}
    make_trainer(tmp_path, 4, [recorder], **options).fit(estimator, TwoSources())
    assert "train/loss" not in recorder.steps[1]
    assert recorder.bar_losses[2:6:2] == [1.0, 3.0]  # of the whole step before
    for name, value in (("train/loss", 2.0), ("train/loss_indoor", 1.0), ("train/loss_outdoor", 5.0)):
        assert logged_values(options["logger"], name) == {1: value, 3: value}


def test_a_fit_trains_the_unet_and_leaves_the_vae_in_eval_mode(base, tmp_path):
    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            assert pl_module.network.unet.training
            assert not pl_module.network.vae.training

    estimator = make_estimator(base)
    vae = {name: weight.clone() for name, weight in estimator.network.vae.state_dict().items()}
    make_trainer(tmp_path, callbacks=[Watch()], val_check_interval=1).fit(estimator, TinyData())
    assert all(torch.equal(vae[name], weight) for name, weight in estimator.network.vae.state_dict().items())


@pytest.mark.parametrize("task", [Depth, Normals])
def test_every_data_set_gets_its_own_scores(base, tmp_path, task):
    trainer = make_trainer(tmp_path)
    estimator = make_estimator(base, task())
    trainer.validate(estimator, TinyData(), verbose=False)
    for name in ("indoor", "outdoor"):
        for metric in (estimator.task.headline_metric, estimator.task.constant_metric):
            assert trainer.callback_metrics[f"val/{name}/{metric}"] > 0
    headline = estimator.task.headline_metric
    indoor, outdoor = (trainer.callback_metrics[f"val/{name}/{headline}"] for name in ("indoor", "outdoor"))
    assert indoor != outdoor

    metric = task().make_metrics(DatasetInfo("tiny"))[0]
    for batch in TinyData().val_dataloader()[1]:
        with torch.no_grad():
            estimator.task.update_metrics([metric], estimator(batch.image), batch)
    assert outdoor == pytest.approx(metric.compute()[headline].item(), rel=1e-5)


def test_validation_noise_is_the_same_every_time(base, tmp_path):
    estimator = make_estimator(base, noise="pyramid")
    scores = []
    for seed in (1, 2):
        seed_everything(seed, verbose=False)
        trainer = make_trainer(tmp_path)
        trainer.validate(estimator, TinyData(), verbose=False)
        scores.append(trainer.callback_metrics["val/indoor/abs_rel"].item())
    assert scores[0] == scores[1]


def test_predictions_are_clipped_to_the_depths_that_a_data_set_can_hold(base, tmp_path):
    class Outdoor(TinyData):
        val_dataset_infos = (DatasetInfo("indoor"), DatasetInfo("outdoor", {"depth": (1.0, 80.0)}))

    estimator = make_estimator(base)
    make_trainer(tmp_path).validate(estimator, Outdoor(), verbose=False)
    ranges = [(metric.near_plane_m, metric.far_plane_m) for (metric,) in estimator.val_metrics]
    assert ranges == [(1e-6, math.inf), (1.0, 80.0)]


class TestMistakes:
    def test_a_data_set_without_normals_is_named_with_the_task(self, base, tmp_path):
        for run in ("fit", "validate"):
            with pytest.raises(InputError, match=r"task Normals needs normals, but data set '\w+'"):
                getattr(make_trainer(tmp_path), run)(make_estimator(base, Normals()), TinyData(modalities=["depth"]))

    def test_images_that_do_not_fit_are_found_before_training_starts(self, base, tmp_path):
        class Uneven(TinyData):
            image_sizes: ClassVar = {"rooms": (32, 32), "streets": (30, 32)}

        with pytest.raises(InputError, match=r"data set streets: images of 30x32 .* multiples of 4"):
            make_trainer(tmp_path).fit(make_estimator(base), Uneven())

    def test_the_trainers_own_clipping_is_refused_and_ours_named(self, base, tmp_path):
        with pytest.raises(InputError, match="gradient_clip_norm of the model"):
            make_trainer(tmp_path, gradient_clip_val=1.0).fit(make_estimator(base), TinyData())

    def test_more_loaders_than_names_are_refused(self, base, tmp_path):
        class Crowded(TinyData):
            def val_dataloader(self):
                return super().val_dataloader() * 2

        with pytest.raises(InputError, match="no name for number 3"):
            make_trainer(tmp_path).validate(make_estimator(base), Crowded(), verbose=False)

    @pytest.mark.parametrize("options", [{"warmup_steps": -1}, {"final_lr_ratio": 0.0}, {"final_lr_ratio": 2.0}])
    def test_schedules_that_would_stop_or_reverse_learning_are_refused(self, base, options):
        with pytest.raises(InputError, match="final_lr_ratio"):
            make_estimator(base, **options)


def test_predicting_needs_no_trainer(base):
    with torch.no_grad():
        prediction = make_estimator(base)(make_batch(1).image)
    assert prediction.shape == (1, 1, 32, 32)
    assert prediction.abs().max() <= 1
