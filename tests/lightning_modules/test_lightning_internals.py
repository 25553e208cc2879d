"""What is used of Lightning's private parts, and of its neighbours', does what this package takes it for."""

import csv
import signal
import warnings
from contextlib import suppress
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import ModelParallelStrategy, model_parallel
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from lightning_modules import lightning_internals as internals
from tests.helpers.tiny import _build_unet

pytestmark = pytest.mark.filterwarnings("ignore")


class Line(LightningModule):
    """Learns nothing much."""

    def __init__(self, start: float = 1.0):
        super().__init__()
        self.save_hyperparameters()
        self.weight = nn.Parameter(torch.full((1,), start))
        self.scores = iter([3.0, 1.0, 2.0, 0.5])

    def training_step(self, batch, batch_idx):
        self.log("loss", self.weight.sum())
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.log("score", next(self.scores))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Numbers(LightningDataModule):
    """Four batches to train on, one to validate on."""

    def train_dataloader(self):
        return DataLoader(torch.ones(4, 1), None)

    def val_dataloader(self):
        return DataLoader(torch.ones(1, 1), None)


def make_trainer(folder, callbacks=(), **options):
    defaults = {"accelerator": "cpu", "devices": 1, "logger": False, "max_epochs": 1, "enable_progress_bar": False}
    defaults |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "enable_checkpointing": bool(callbacks)}
    return Trainer(callbacks=list(callbacks), default_root_dir=folder, **(defaults | options))


class Watch(Callback):
    """Notes what is said of a trainer at the end of every micro-batch, and after which it validated."""

    def __init__(self):
        self.said, self.validated_after = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        said = internals.is_amid_step(trainer), internals.will_validate(trainer), internals.logged_step(trainer)
        self.said.append(said)

    def on_validation_start(self, trainer, pl_module):
        self.validated_after.append(len(self.said))


def test_the_place_of_a_micro_batch_is_known_before_lightning_acts_on_it(tmp_path):
    watch = Watch()
    trainer = make_trainer(
        tmp_path, [watch], enable_checkpointing=False, accumulate_grad_batches=2, val_check_interval=2
    )
    trainer.fit(Line(), Numbers())
    assert watch.said == [(True, False, 0), (False, True, 0), (True, False, 1), (False, True, 1)]
    assert watch.validated_after == [2, 4]


def test_curves_go_on_under_the_number_that_was_set_and_checkpoints_hold_it(tmp_path):
    class Jump(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 1:
                internals.set_logged_step(trainer, 40)

    logger = CSVLogger(tmp_path)
    trainer = make_trainer(
        tmp_path, [Jump()], logger=logger, log_every_n_steps=1, max_steps=3, enable_checkpointing=False
    )
    trainer.fit(Line(), Numbers())
    with open(f"{logger.log_dir}/metrics.csv") as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["loss"]] == [0, 40, 41]
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    loops = torch.load(tmp_path / "end.ckpt", weights_only=True)["loops"]
    assert loops["fit_loop"]["epoch_loop.state_dict"][internals.LOGGED_STEP] == 42


@pytest.mark.parametrize("left_alone", [True, False])
def test_a_trainer_takes_no_signals_and_asks_no_rank_when_told_so(tmp_path, monkeypatch, left_alone):
    class Told(Callback):
        def setup(self, trainer, pl_module, stage):
            if left_alone:
                internals.leave_signals_alone(trainer)

        def on_train_start(self, trainer, pl_module):
            self.taken = signal.getsignal(signal.SIGTERM) is not before

    before, told, asked = signal.getsignal(signal.SIGTERM), Told(), []
    trainer = make_trainer(tmp_path, [told], enable_checkpointing=False, max_steps=1)
    loop = trainer.fit_loop.epoch_loop
    monkeypatch.setattr(type(loop), "_broadcast_sigterm_tensor", lambda self: asked.append(self))
    trainer.fit(Line(), Numbers())
    assert told.taken == (not left_alone)
    assert signal.getsignal(signal.SIGTERM) is before
    # What Lightning does in every micro-step where there are several ranks.
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(type(trainer), "world_size", 2)
    with suppress(Exception):
        loop.advance(iter([]))
    assert bool(asked) == (not left_alone)


def test_all_devices_hold_one_copy_of_the_weights(monkeypatch):
    meshes = []
    monkeypatch.setattr(model_parallel, "_setup_device_mesh", lambda *sizes: meshes.append(sizes[:2]))
    monkeypatch.setattr(ModelParallelStrategy, "_setup_distributed", lambda self: None)
    monkeypatch.setattr(ModelParallelStrategy, "root_device", torch.device("cpu"))
    monkeypatch.setattr(ModelParallelStrategy, "world_size", 6)
    strategy = ModelParallelStrategy()
    strategy.parallel_devices = [torch.device("cpu")]
    strategy.connect(LightningModule())
    strategy.accelerator = SimpleNamespace(setup_device=lambda device: None)
    internals.hold_one_copy(strategy, 6)
    strategy.setup_environment()
    assert meshes == [(6, 1)]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("marked", [True, False])
def test_a_metric_that_was_filled_from_outside_computes_without_a_warning(marked):
    metric = MeanMetric()
    metric.mean_value, metric.weight = torch.tensor(6.0), torch.tensor(2.0)
    if marked:
        internals.mark_as_updated(metric)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert metric.compute() == 3
    assert bool(said) == (not marked)


def test_the_blocks_that_diffusers_lists_are_blocks_of_its_models():
    unet = _build_unet(4)
    vae = AutoencoderKL(norm_num_groups=4, block_out_channels=[8])  # lists none to compile, but some not to split
    assert internals.repeated_blocks(unet) == ("BasicTransformerBlock",)
    assert "ResnetBlock2D" in internals.repeated_blocks(vae)
    for model in (unet, vae):
        assert {type(part).__name__ for part in model.modules()} & set(internals.repeated_blocks(model))
    assert internals.repeated_blocks(nn.Linear(1, 1)) == ()


def test_what_is_said_to_checkpoint_itself_does_when_it_is_told_and_the_rest_refuses():
    vae = AutoencoderKL(norm_num_groups=4, block_out_channels=[8])
    assert internals.checkpoints_itself(vae) and not internals.checkpoints_itself(nn.Linear(1, 1))
    vae.enable_gradient_checkpointing()
    assert vae.is_gradient_checkpointing
    other = AutoencoderTiny()
    other._supports_gradient_checkpointing = False
    assert not internals.checkpoints_itself(other)
    with pytest.raises(ValueError, match="does not support gradient checkpointing"):
        other.enable_gradient_checkpointing()


class Kept(internals.OpenModelCheckpoint):
    """Keeps the best two steps, and notes what it does."""

    def __init__(self, folder):
        super().__init__(folder, "step{step}", monitor="score", save_top_k=2, auto_insert_metric_name=False)
        self.done = []

    def on_validation_end(self, trainer, pl_module):
        assert not self.needs_no_file(trainer)
        self.keep_if_best(trainer)
        assert self.holds_step(trainer) == self.needs_no_file(trainer)
        self.done.append(("holds", self.holds_step(trainer), self.name_of_step(trainer).rpartition("/")[2]))

    def on_train_epoch_end(self, trainer, pl_module):
        """Keep nothing more."""

    def on_train_end(self, trainer, pl_module):
        assert self.needs_no_file(trainer)
        self.forget_saved_step()
        assert not self.holds_step(trainer)
        assert not self.needs_no_file(trainer)

    def save_file(self, trainer, file):
        self.done.append(("save", file.rpartition("/")[2]))
        super().save_file(trainer, file)

    def remove_file(self, trainer, file):
        self.done.append(("remove", file.rpartition("/")[2]))
        super().remove_file(trainer, file)


def test_lightning_keeps_the_best_checkpoints_through_the_public_names(tmp_path):
    kept = Kept(tmp_path)  # the scores are 3, 1, 2 and 0.5, and the smallest are the best
    make_trainer(tmp_path, [kept], val_check_interval=1).fit(Line(), Numbers())
    assert kept.done == [
        ("save", "step1.ckpt"),
        ("holds", True, "step1.ckpt"),
        ("save", "step2.ckpt"),
        ("holds", True, "step2.ckpt"),
        ("save", "step3.ckpt"),
        ("remove", "step1.ckpt"),
        ("holds", True, "step3.ckpt"),
        ("save", "step4.ckpt"),
        ("remove", "step3.ckpt"),
        ("holds", True, "step4.ckpt"),
    ]
    assert sorted(file.name for file in tmp_path.glob("*.ckpt")) == ["step2.ckpt", "step4.ckpt"]


class Commands(internals.OpenCLI):
    """Two commands, one with an option of its own."""

    @staticmethod
    def subcommands():
        return {"fit": {"model", "datamodule"}, "validate": {"model", "datamodule", "verbose"}}

    def add_other_commands(self, add):
        add("draw", LightningArgumentParser(), help="Runs elsewhere.")

    def add_arguments_to_command(self, parser, command):
        if command == "validate":
            parser.add_argument("--strict", type=bool, default=True)

    def run_arguments(self, command):
        return {"verbose": command}

    def instantiate_trainer(self, **kwargs):
        self.options = self.made_options
        return super().instantiate_trainer(**kwargs)


class Told(Trainer):
    """Notes what it is told to do."""

    calls: ClassVar = []

    def validate(self, model=None, datamodule=None, ckpt_path=None, verbose=True):
        self.calls.append({"model": model, "verbose": verbose})


def test_commands_get_what_a_subclass_adds_and_a_checkpoint_changes_no_option(tmp_path, capsys):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.fit(Line(start=5.0), Numbers())
    trainer.save_checkpoint(tmp_path / "five.ckpt")
    words = ["validate", "--strict=false", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    words.append(f"--ckpt_path={tmp_path / 'five.ckpt'}")
    options = {"save_config_callback": None, "trainer_class": Told}
    cli = Commands(Line, Numbers, args=words, **options)
    assert Told.calls[0]["verbose"] == "validate"
    assert Told.calls[0]["model"].hparams.start == 1.0
    assert isinstance(cli.options.model, Line)
    assert "--strict" in cli.command_parser.format_help()
    with pytest.raises(SystemExit):
        Commands(Line, Numbers, args=["fit", "--strict=false"], **options)
    with pytest.raises(SystemExit):
        Commands(Line, Numbers, args=["--help"], **options)
    assert "Runs elsewhere." in capsys.readouterr().out
