"""One name for a run in every command: what is taken, what is laid over it, and whether there is a better one."""

import re
import shutil

import pytest
import yaml
from PIL import Image

import train
from geometry.command_line import Command
from geometry.errors import InputError
from lightning_modules.inference import load_model
from lightning_modules.inference.arguments import ModelChoice, find_run_configs
from lightning_modules.training.found_runs import find_run
from tests.helpers.runs import prepare
from tests.lightning_modules.inference.runs import photo

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of 4 steps whose best is kept, and after it a trial of one step under the same name."""
    folder = tmp_path_factory.mktemp("runs")
    config = prepare(folder, max_steps=4)
    options = ["--trainer.accumulate_grad_batches=1", "--trainer.val_check_interval=2", "--checkpoints.keep=2"]
    options += [
        "--model.warmup_steps=0",
        "--model.optimizer=torch.optim.Adam",
        "--model.optimizer.lr=0.01",
        "--checkpoints.monitor=val/a/abs_rel",
        f"--trainer.default_root_dir={folder}/runs",
    ]
    run("fit", "--config", config, *options)
    run("fit", "--config", config, *options, "--trainer.max_steps=1")
    return folder


def load(choice: ModelChoice) -> None:
    """Take a model.

    Args:
        choice: Model.
    """
    LOADED.append(choice.load())


LOADED = []


def chosen(words):
    assert Command(load, prepare_words=find_run_configs).main(words, "load") == 0
    return LOADED.pop()


def run(*words):
    train.main([str(word) for word in words])


def test_names_of_checkpoints_hold_step_and_metric(folder):
    names = sorted(file.name for file in (folder / "runs/tiny/version_0/checkpoints").glob("step*"))
    assert len(names) == 2
    assert all(re.fullmatch(r"step00000[24]-a-abs_rel-0\.\d+\.ckpt", name) for name in names), names


def test_a_trial_under_the_same_name_does_not_take_the_place_of_the_trained_run_unsaid(folder, tmp_path, capsys):
    Image.fromarray(photo()).save(tmp_path / "a.png")
    run("predict", tmp_path / "a.png", "--run", folder / "runs/tiny", "--output", tmp_path / "out")
    first, last = capsys.readouterr().out.strip().splitlines()
    assert f"{folder}/runs/tiny/version_1: last.ckpt, step 1" in first
    assert f"{folder}/runs/tiny/version_0 has 4 steps" in first
    assert last.startswith("1 predicted, 0 failed")


def test_best_is_the_file_that_the_metric_chose_in_python_and_on_the_command_line(folder):
    best = find_run(folder / "runs/tiny/version_0", "best")
    values = {
        float(re.search(r"a-abs_rel-(.*)\.ckpt", file.name)[1]): file
        for file in (folder / "runs/tiny/version_0/checkpoints").glob("step*")
    }
    assert best.checkpoint == values[min(values)] and f"val/a/abs_rel {min(values):.5g}" in best.describe()
    assert load_model(folder / "runs/tiny/version_0", checkpoint="best").source == str(best.checkpoint)
    with pytest.raises(InputError, match="version_1 kept no best checkpoint"):
        find_run(folder / "runs/tiny/version_1", "best")


def test_last_says_that_an_earlier_step_was_better(folder, tmp_path):
    own = shutil.copytree(folder / "runs/tiny/version_0", tmp_path / "version_0")
    last = next((own / "checkpoints").glob("step000004*"))
    last.rename(last.with_name("step000004-a-abs_rel-0.9.ckpt"))
    found = find_run(own)
    assert found.step == 4 and found.score == "val/a/abs_rel 0.9"
    assert found.better[0].startswith("step000002-a-abs_rel-0.") and found.better[0].endswith("--ckpt_path best")
    assert find_run(own, "best").step == 2


@pytest.mark.parametrize("command", ["validate", "test"])
def test_validate_and_test_need_nothing_but_the_run(folder, command, capsys, caplog, monkeypatch):
    monkeypatch.chdir(folder)
    caplog.set_level("INFO")
    run(command, "--run", "runs/tiny/version_0", "--data.max_val_samples=2")
    assert "runs/tiny/version_0: last.ckpt, step 4" in caplog.text
    assert re.search(r"abs_rel", capsys.readouterr().out)


def test_what_is_given_beside_the_run_is_laid_over_its_configuration(folder, tmp_path):
    over = tmp_path / "over.yaml"
    over.write_text(yaml.safe_dump({"model": {"init_args": {"warmup_steps": 77}}}))
    words = ["--run", str(folder / "runs/tiny/version_0"), "--config", str(over), "--ckpt_path", "best"]
    model = chosen(words)
    assert model.estimator.warmup_steps == 77 and model.config["name"] == "tiny"
    assert "a-abs_rel" in model.source


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["validate", "--run", "runs/none"], "runs/none is no checkpoint, no folder of a run"),
        (["predict", "a.png", "--output", "o"], "one of --run, --ckpt_path and --pretrained is needed"),
        (["predict", "a.png", "--output", "o", "--run", "r", "--model", "m"], "both name a model"),
        (["fit", "--run", "runs/tiny"], "unrecognized arguments: --run"),
        (["validate", "--run"], "--run needs a value"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo()).save("a.png")
    with pytest.raises(SystemExit) as ended:
        run(*words)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and error.count("\n") == 1
