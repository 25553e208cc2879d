"""A student with Hypersim on disk trains with the paper's recipe, and looks at curves and scores."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.walks.conftest import SMALL

pytestmark = pytest.mark.slow


def test_a_student_with_hypersim_on_disk(terminal):
    terminal.onestep("synthesize", "hypersim", "--output", "raw", "--frames", 12, "--size", 64, 96)
    terminal.onestep("prepare", "hypersim", "--raw", "raw", "--output", "shards/hypersim", "--size", 64, 96)
    terminal.onestep("prepare", "check", "shards/hypersim")
    terminal.onestep("prepare", "preview", "shards/hypersim", "--output", "sheet.png")
    assert (terminal.folder / "sheet.png").stat().st_size > 5000

    data = ("--data.init_args.datasets", "[{path: shards/hypersim}]", "--data.init_args.val_datasets", "null")
    printed = terminal.onestep("fit", "--config", "depth_stable_diffusion", *data, *SMALL)
    assert "hypersim" in printed[-1] and len(printed[-1].split()) == 4, printed[-3:]  # AbsRel, constant, ratio
    run = terminal.folder / "runs/depth_stable_diffusion/version_0"
    curves = EventAccumulator(str(run)).Reload().Tags()
    assert {"train/loss", "val/hypersim/abs_rel"} <= set(curves["scalars"]) and "epoch" not in curves["scalars"]
    assert curves["images"] == ["val/hypersim"] and "_hparams_/session_start_info" in _plugins(run)

    printed = terminal.onestep("validate", "--run", "runs/depth_stable_diffusion")
    assert "runs/depth_stable_diffusion/version_0: last.ckpt, step 3" in terminal.said
    assert printed[-1].split()[0] == "hypersim", printed[-3:]
    terminal.onestep("validate", "--run", "runs/depht", status=2)
    assert terminal.said[-1].startswith("error: ") and "runs/depht" in terminal.said[-1]


def _plugins(run):
    return EventAccumulator(str(run)).Reload().summary_metadata
