"""What a person reads at the terminal while a run goes on: a line per validation, and no noise."""

import re
import warnings

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tqdm import tqdm

import train
from lightning_modules.command_line import bars
from lightning_modules.command_line.console import input_error_behind, quieten
from tests.helpers.runs import fit, log_of, prepare


def test_fit_prints_a_line_per_validation_and_every_message_begins_on_a_line_of_its_own(tmp_path):
    config = prepare(tmp_path, max_steps=6)
    options = ["--trainer.accumulate_grad_batches=1", "--trainer.val_check_interval=2", "--checkpoints.every_n_steps=2"]
    assert fit(tmp_path / "runs", config, *options, "--trainer.enable_progress_bar=true") == [0]
    log = log_of(tmp_path / "runs")
    lines = [line.split("\r")[-1] for line in log.splitlines()]
    found = [line for line in lines if re.match(r"step \d+: ", line)]
    assert [line.split(":")[0] for line in found] == ["step 2", "step 4", "step 6"], log
    assert re.fullmatch(
        r"step 2: val/a/abs_rel \d\.\d{4} \(best so far\), val/b/abs_rel \d\.\d{4} \(best so far\)", found[0]
    )
    assert not re.search(r"step/s.*(training|step \d+:|warning)", log.replace("\r", "\n"))
    for noise in ("many workers", "Be aware that", "Tip", "TPU", "`Trainer.fit` stopped"):
        assert noise not in log

    again = [*options, "--trainer.max_steps=8", "--trainer.enable_progress_bar=true"]
    assert fit(tmp_path / "runs", config, *again) == [0]
    best = re.findall(
        r"^step 8: val/a/abs_rel \d\.\d{4} \((.*?)\)", log_of(tmp_path / "runs").replace("\r", "\n"), re.M
    )
    assert best and re.fullmatch(r"best so far|best \d\.\d{4} at step [246]", best[0])


def test_a_warning_amid_a_bar_begins_on_a_line_of_its_own(capsys):
    quieten()
    with tqdm(total=2) as bar:
        bars.note_open(bar)
        text = warnings.formatwarning("it is odd", UserWarning, train.__file__.replace("train.py", "geometry/a.py"), 1)
        bars.note_closed(bar)
    assert text == "\nwarning: it is odd\n"


class Hungry(Callback):
    """Asks for more memory than there is, at the second step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step:
            torch.empty(1 << 55)


def test_a_fit_that_runs_out_of_memory_says_what_to_lower_and_how_to_go_on(tmp_path):
    config = prepare(tmp_path, max_steps=6)
    hungry = "--trainer.callbacks+=tests.lightning_modules.command_line.test_terminal.Hungry"
    assert fit(tmp_path / "runs", config, hungry, "--checkpoints.every_n_steps=1") == [2]
    log = log_of(tmp_path / "runs")
    (line,) = [line for line in log.splitlines() if line.startswith("error: memory ran out (")]
    for word in ("allocate 144115188075855872 bytes", "data.batch_size", "onestep plan", "--ckpt_path last"):
        assert word in line
    assert "Traceback" not in log
    assert fit(tmp_path / "runs", config, "--ckpt_path=last") == [0]


def test_a_missing_gpu_says_what_to_do():
    message = input_error_behind(MisconfigurationException("No supported gpu backend found!"))
    assert "--trainer.accelerator auto or cpu" in message


@pytest.mark.parametrize(
    "text",
    [
        "The 'train_dataloader' does not have many workers which may be a bottleneck. Consider increasing",
        "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",
    ],
)
def test_warnings_that_help_nobody_are_not_shown(text):
    with warnings.catch_warnings(record=True) as heard:
        warnings.resetwarnings()
        quieten()
        warnings.warn(text, UserWarning, stacklevel=1)
    assert not heard
