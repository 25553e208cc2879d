import pytest
import torch
from lightning.pytorch import Callback, Trainer

from geometry.errors import InputError
from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from lightning_modules.training.checkpoints import Checkpoints
from lightning_modules.training.ema import ExponentialMovingAverage
from tests.helpers.tiny import TinyData, build_base

pytestmark = pytest.mark.filterwarnings("ignore")

DECAY = 0.6


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


def weights_of(estimator):
    return {name: p.detach().clone() for name, p in estimator.named_parameters() if p.requires_grad}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def run(base, folder, ema=None, max_steps=4, callbacks=(), ckpt_path=None, command="fit", **options):
    torch.manual_seed(0)
    estimator = SingleStepEstimator(
        StableDiffusion(str(base)),
        Depth(),
        optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
        warmup_steps=0,
        decay_steps=100,
    )
    defaults = {"val_check_interval": 1000, "check_val_every_n_epoch": None, "log_every_n_steps": 2}
    trainer = Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        callbacks=[*([ema] if ema else []), *callbacks, Checkpoints(every_n_steps=1000, folder=str(folder))],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **(defaults | options),
    )
    verbosity = {"verbose": False} if command == "validate" else {}
    getattr(trainer, command)(estimator, TinyData(), ckpt_path=ckpt_path, weights_only=True, **verbosity)
    return estimator, trainer


def load(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


class Weights(Callback):
    """Keeps the weights after every optimiser step, the first ones included."""

    def __init__(self):
        self.steps = []

    def on_train_start(self, trainer, pl_module):
        self.steps.append(weights_of(pl_module))

    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step == len(self.steps):
            self.steps.append(weights_of(pl_module))


class Poison(Callback):
    """Spoils a micro-batch."""

    def __init__(self, number):
        self.number = number

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.number:
            batch.image[:] = torch.nan


def average_by_hand(steps, warmup):
    average = {name: weight.double() for name, weight in steps[0].items()}
    for update, weights in enumerate(steps[1:]):
        decay = min(DECAY, (1 + update) / (10 + update)) if warmup else DECAY
        average = {name: decay * old + (1 - decay) * weights[name] for name, old in average.items()}
    return average


@pytest.mark.parametrize(("warmup", "accumulated"), [(False, 1), (True, 2)])
def test_the_average_follows_the_formula_once_per_optimiser_step(base, tmp_path, warmup, accumulated):
    seen = Weights()
    ema = ExponentialMovingAverage(DECAY, warmup)
    estimator, trainer = run(base, tmp_path, ema, callbacks=[seen], accumulate_grad_batches=accumulated)
    assert len(seen.steps) == 5
    expected, stored = average_by_hand(seen.steps, warmup), load(tmp_path)["ema_state_dict"]
    assert stored.keys() == expected.keys() == load(tmp_path)["state_dict"].keys()
    for name, weight in expected.items():
        assert torch.allclose(stored[name].double(), weight, rtol=1e-5, atol=1e-6), name

    last = weights_of(estimator)
    apart = sum((last[name] - weight).square().sum() for name, weight in expected.items()).sqrt()
    length = sum(weight.square().sum() for weight in last.values()).sqrt()
    assert trainer.callback_metrics["train/ema_distance"].item() == pytest.approx((apart / length).item(), rel=1e-4)


def test_a_skipped_step_leaves_the_average_alone(base, tmp_path):
    seen = Weights()
    run(base, tmp_path, ExponentialMovingAverage(DECAY), max_steps=3, callbacks=[seen, Poison(1)])
    assert equal(seen.steps[1], seen.steps[2])
    expected = average_by_hand([seen.steps[0], seen.steps[1], seen.steps[3]], warmup=True)
    for name, weight in load(tmp_path)["ema_state_dict"].items():
        assert torch.allclose(weight.double(), expected[name], rtol=1e-5, atol=1e-6), name


def test_a_run_with_an_average_trains_the_same_weights_and_resumes_both_to_the_bit(base, tmp_path):
    run(base, tmp_path / "without", max_steps=5)
    # Validations in between swap the weights, too.
    run(base, tmp_path / "whole", ExponentialMovingAverage(DECAY), max_steps=5, val_check_interval=2)
    run(base, tmp_path / "cut", ExponentialMovingAverage(DECAY), max_steps=3)
    last = tmp_path / "cut/last.ckpt"
    run(base, tmp_path / "cut", ExponentialMovingAverage(DECAY), max_steps=5, ckpt_path=last)
    without, whole, cut = (load(tmp_path / name) for name in ("without", "whole", "cut"))
    assert "ema_state_dict" not in without
    assert equal(without["state_dict"], whole["state_dict"])
    assert equal(whole["state_dict"], cut["state_dict"])
    assert equal(whole["ema_state_dict"], cut["ema_state_dict"])
    assert not equal(whole["ema_state_dict"], whole["state_dict"])


class WeightsWhenValidated(Callback):
    def __init__(self, folder=None, fail=False):
        self.folder, self.fail = folder, fail

    def on_validation_batch_start(self, trainer, pl_module, *args):
        self.validated = weights_of(pl_module)
        if self.folder:
            trainer.save_checkpoint(self.folder / "during.ckpt")
        if self.fail:
            raise RuntimeError("cable pulled")


def test_validation_sees_the_average_and_training_goes_on_with_the_weights(base, tmp_path):
    seen = WeightsWhenValidated(tmp_path)
    estimator, trainer = run(base, tmp_path, ExponentialMovingAverage(DECAY), 4, callbacks=[seen], val_check_interval=4)
    checkpoint = load(tmp_path)
    assert equal(seen.validated, checkpoint["ema_state_dict"])
    assert equal(weights_of(estimator), checkpoint["state_dict"])
    score = trainer.callback_metrics["val/indoor/abs_rel"]

    # A checkpoint that was written during the validation says the same.
    during = torch.load(tmp_path / "during.ckpt", weights_only=True)
    assert equal(during["state_dict"], checkpoint["state_dict"])
    assert equal(during["ema_state_dict"], checkpoint["ema_state_dict"])

    for ema, expected in (
        (ExponentialMovingAverage(DECAY), "ema_state_dict"),
        (ExponentialMovingAverage(DECAY, validate=False), "state_dict"),
        (None, "state_dict"),
    ):
        seen = WeightsWhenValidated()
        last = tmp_path / "last.ckpt"
        _, trainer = run(base, tmp_path, ema, callbacks=[seen], ckpt_path=last, command="validate")
        assert equal(seen.validated, checkpoint[expected])
        assert (trainer.callback_metrics["val/indoor/abs_rel"] == score) == (expected == "ema_state_dict")


def test_an_error_during_validation_does_not_leave_the_average_in_the_place_of_the_weights(base, tmp_path):
    ema, seen = ExponentialMovingAverage(DECAY), Weights()
    failing = WeightsWhenValidated(fail=True)

    class Keep(Callback):
        def on_exception(self, trainer, pl_module, exception):
            self.weights = weights_of(pl_module)

    keep = Keep()
    with pytest.raises(RuntimeError, match="cable pulled"):
        run(base, tmp_path, ema, callbacks=[seen, failing, keep], val_check_interval=3)
    assert equal(keep.weights, seen.steps[-1])
    assert not equal(failing.validated, seen.steps[-1])


def test_a_run_that_had_no_average_gets_one_from_its_weights_and_says_so(base, tmp_path, caplog):
    run(base, tmp_path, max_steps=2)
    start = load(tmp_path)["state_dict"]
    seen = Weights()
    with caplog.at_level("INFO"):
        run(base, tmp_path, ExponentialMovingAverage(DECAY), 3, callbacks=[seen], ckpt_path=tmp_path / "last.ckpt")
    assert "the checkpoint holds no average. It starts from the checkpoint's weights" in caplog.text
    end, stored = load(tmp_path)["state_dict"], load(tmp_path)["ema_state_dict"]
    for name in start:
        expected = 0.1 * start[name] + 0.9 * end[name]  # the warm-up begins anew
        assert torch.allclose(stored[name], expected, rtol=1e-4, atol=1e-6), name


def test_an_average_that_does_not_fit_is_refused(base, tmp_path):
    run(base, tmp_path, ExponentialMovingAverage(DECAY), max_steps=1)
    whole = load(tmp_path)
    name = "network.unet.conv_in.weight"
    for spoilt, message in (
        ({key: value for key, value in whole["ema_state_dict"].items() if key != name}, "lacks 1 weights"),
        (whole["ema_state_dict"] | {"other": torch.zeros(1)}, r"has no place for 1 weights \(other"),
        (whole["ema_state_dict"] | {name: torch.zeros(1)}, "another shape"),
    ):
        torch.save(whole | {"ema_state_dict": spoilt}, tmp_path / "spoilt.ckpt")
        with pytest.raises(InputError, match=message):
            run(base, tmp_path, ExponentialMovingAverage(DECAY), ckpt_path=tmp_path / "spoilt.ckpt")


@pytest.mark.parametrize("decay", [0.0, 1.0, 999])
def test_decays_that_average_nothing_or_for_ever_are_refused(decay):
    with pytest.raises(InputError, match="between 0 and 1"):
        ExponentialMovingAverage(decay)


def test_weights_in_half_precision_are_refused_for_their_average_would_stand_still(base, tmp_path):
    with pytest.raises(InputError, match="bf16-mixed"):
        run(base, tmp_path, ExponentialMovingAverage(DECAY), precision="bf16-true")
