"""Loggers of one's own: a run is found and resumed to the bit whatever logs it, and they get what they can hold."""

import csv
import json
import re
import shutil
import struct
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.helpers import runs
from tests.test_train import base, config, error_of, run  # noqa: F401 - fixtures

pytestmark = pytest.mark.filterwarnings("ignore")
runs.start_server()

KILLED = -9
LOGGERS = "lightning.pytorch.loggers"
NAMED = "--trainer.logger.name=tiny"
TWO = ("TensorBoardLogger", "CSVLogger")


@pytest.fixture(scope="module")
def resumable(tmp_path_factory):
    return runs.prepare(tmp_path_factory.mktemp("data"))


def logger(name, folder, **options):
    (folder / "logs").mkdir(exist_ok=True, parents=True)
    options |= {"offline": "true"} if name == "WandbLogger" else {}
    own = [f"--trainer.logger.{key}={value}" for key, value in options.items()]
    return [f"--trainer.logger={LOGGERS}.{name}", f"--trainer.logger.save_dir={folder / 'logs'}", *own]


def rows(folder):
    (file,) = (folder / "logs").rglob("metrics.csv")
    with open(file, newline="") as stream:
        found = list(csv.DictReader(stream))
    times = ("train/images_per_s", "train/data_wait_share")
    return [{name: value for name, value in row.items() if name not in times} for row in found]


def killed_and_undisturbed(tmp_path, file, name):
    """Return the folders of a run that was killed twice, and of one that was not."""
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    assert runs.fit(undisturbed, file, *logger(name, undisturbed)) == [0], runs.log_of(undisturbed)
    for micro_step in (8, 14):
        status = runs.fit(killed, file, *logger(name, killed), *runs.kill_at(micro_step))
        assert status == [KILLED], runs.log_of(killed)
    assert runs.fit(killed, file, *logger(name, killed)) == [0], runs.log_of(killed)
    assert [folder.name for folder in (killed / "tiny").iterdir()] == ["version_0"], "it went on in its folder"
    for part in ("state_dict", "ema_state_dict", "optimizer_states", "lr_schedulers", "loops"):
        states = [runs.last(folder)[part] for folder in (killed, undisturbed)]
        if part == "loops":  # a validation that a stopped run owed is counted otherwise
            states = [state["fit_loop"]["epoch_loop.batch_progress"] for state in states]
        assert not runs.differences(*states), part
    return killed, undisturbed


def test_a_killed_run_with_a_csv_logger_ends_with_the_weights_and_the_rows_of_an_undisturbed_one(tmp_path, resumable):
    killed, undisturbed = killed_and_undisturbed(tmp_path, resumable, "CSVLogger")
    assert len(rows(undisturbed)) > 20
    assert rows(killed) == rows(undisturbed)


def test_a_killed_run_with_wandb_ends_with_the_weights_and_the_curves_of_an_undisturbed_one(tmp_path, resumable):
    killed, undisturbed = killed_and_undisturbed(tmp_path, resumable, "WandbLogger")
    ids = {file.stem for file in (killed / "logs").rglob("*.wandb")}
    assert len(list((killed / "logs").rglob("*.wandb"))) == 3 and len(ids) == 1, "every start adds to the same page"
    again, expected = wandb_curves(killed), wandb_curves(undisturbed)
    assert "train/loss" in expected and "val/a/abs_rel" in expected
    assert again == expected


def wandb_records(folder):
    """Yield the records of W&B's offline files, which are written in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted((folder / "logs").rglob("*.wandb")):
        data, place, whole = file.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if 32768 - place % 32768 < 7:
                place += 32768 - place % 32768
                continue
            _, length, kind = struct.unpack("<IHB", data[place : place + 7])
            if len(data) < place + 7 + length or kind == 0:
                break  # cut off by the kill
            whole += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or its last part
                record = Record()
                record.ParseFromString(whole)
                yield record
                whole = b""


def wandb_curves(folder):
    """Return the values by name and step; the same value logged twice counts once."""
    found = {}
    for record in wandb_records(folder):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for name, value in row.items():
                if name.startswith(("train/", "val/")) and not name.endswith(("images_per_s", "data_wait_share")):
                    found.setdefault(name, {}).setdefault(row["trainer/global_step"], set()).add(value)
    return found


def test_wandb_gets_the_panels_and_the_config(tmp_path, resumable):
    options = ("--panels.num_images=1", "--trainer.max_steps=2")
    assert runs.fit(tmp_path, resumable, *logger("WandbLogger", tmp_path), *options) == [0], runs.log_of(tmp_path)
    assert list((tmp_path / "logs").rglob("media/images/val/*.png"))
    saved = [
        (item.key or "/".join(item.nested_key), item.value_json)
        for record in wandb_records(tmp_path)
        for update in (record.config, record.run.config)
        for item in update.update
    ]
    assert any("max_steps" in value or "max_steps" in key for key, value in saved)


def test_two_ranks_with_a_csv_logger_share_one_run_folder(tmp_path, resumable):
    options = (
        *logger("CSVLogger", tmp_path),
        "--data.num_workers=1",
        "--trainer.max_steps=4",
        "--data.val_batch_size=1",
    )
    assert runs.fit(tmp_path, resumable, *options, world_size=2) == [0, 0], runs.log_of(tmp_path)
    assert [folder.name for folder in (tmp_path / "tiny").iterdir()] == ["version_0"]
    assert runs.fit(tmp_path, resumable, *options, "--trainer.max_steps=5", world_size=2) == [0, 0]
    assert [folder.name for folder in (tmp_path / "tiny").iterdir()] == ["version_0"]
    assert runs.last(tmp_path)["global_step"] == 5


class TestLast:
    @pytest.mark.parametrize("kind", ["csv", "tensorboard", "in the run", "list", "none"])
    def test_every_command_finds_the_run_whatever_logs(self, config, tmp_path, kind, capsys):  # noqa: F811
        entries = (f"{{class_path: {LOGGERS}.{n}, init_args: {{save_dir: {tmp_path}/{n}}}}}" for n in TWO)
        own = {
            "csv": logger("CSVLogger", tmp_path),
            "tensorboard": logger("TensorBoardLogger", tmp_path),
            "in the run": [
                f"--trainer.logger={LOGGERS}.CSVLogger",
                f"--trainer.logger.save_dir={tmp_path}/runs",
                NAMED,
            ],
            "list": [f"--trainer.logger=[{', '.join(entries)}]"],
            "none": ["--trainer.logger=false"],
        }[kind]
        run("fit", "--config", config, *own, "--model.optimizer.lr=0.01")
        folder = tmp_path / "runs/tiny/version_0"
        assert (folder / "config.yaml").is_file() and (folder / "checkpoints/last.ckpt").is_file()
        assert (folder / "metrics.csv").is_file() == (kind == "in the run")
        fitted = _scores(capsys)
        run("validate", "--config", config, *own, "--ckpt_path=last")
        assert _scores(capsys) == fitted
        image = "lightning_modules/examples/room.jpg"
        for command in (["predict", image, "--processing-res=32"], ["export"]):
            output = f"--output={tmp_path / command[0]}"
            run(*command, "--ckpt_path=last", "--config", folder / "config.yaml", output)
            assert any((tmp_path / command[0]).iterdir())
        card = (tmp_path / "export/README.md").read_text()
        shown = [float(value) for value in re.findall(r"\| indoor/abs_rel \| (\S+) \|", card)]
        assert shown == pytest.approx([float(fitted[0].split()[1])], abs=1e-3), "the card holds the run's scores"
        run("fit", "--config", config, *own, "--ckpt_path=last", "--trainer.max_steps=5")
        assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 5
        assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_steps"] == 5

    def test_checkpoints_in_a_folder_of_their_own_are_found_too(self, config, tmp_path, capsys):  # noqa: F811
        own = f"--checkpoints.folder={tmp_path / 'elsewhere'}"
        run("fit", "--config", config, own)
        run("fit", "--config", config, own, "--ckpt_path=last", "--trainer.max_steps=5")
        assert torch.load(tmp_path / "elsewhere/last.ckpt", weights_only=True)["global_step"] == 5
        arguments = ("fit", "--config", config, "--ckpt_path=last", f"--checkpoints.folder={tmp_path / 'third'}")
        assert "keeps its checkpoints in" in error_of(capsys, *arguments)
        assert "watched no metric. Take last" in error_of(capsys, "validate", "--config", config, "--ckpt_path=best")

    def test_a_run_of_an_earlier_version_that_lies_beside_its_logs_is_found_and_named(
        self,
        config,  # noqa: F811
        tmp_path,
        caplog,
    ):
        own = logger("CSVLogger", tmp_path)
        run("fit", "--config", config, *own)
        old = tmp_path / "logs/lightning_logs/version_0"
        for name in ("checkpoints", "config.yaml"):
            (tmp_path / "runs/tiny/version_0" / name).rename(old / name)
        shutil.rmtree(tmp_path / "runs")
        caplog.set_level("INFO")
        run("export", "--ckpt_path=last", "--config", old / "config.yaml", f"--output={tmp_path / 'export'}")
        run("fit", "--config", config, *own, "--ckpt_path=last", "--trainer.max_steps=5")
        assert f"an earlier version of this project, in {old}" in caplog.text
        file = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
        assert torch.load(file, weights_only=True)["global_step"] == 5

    def test_a_config_that_was_saved_by_a_resumed_run_logs_elsewhere(self, config, tmp_path):  # noqa: F811
        own = logger("CSVLogger", tmp_path)
        run("fit", "--config", config, *own)
        run("fit", "--config", config, *own, "--ckpt_path=last", "--trainer.max_steps=4")
        saved = yaml.safe_load((tmp_path / "runs/tiny/version_0/config.yaml").read_text())
        assert saved["trainer"]["logger"]["init_args"]["version"] is None


def _scores(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("abs_rel", "delta1"))]


def test_a_logger_without_its_package_is_one_line_that_says_what_to_install(config, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "wandb", None)
    error = error_of(capsys, "fit", "--config", config, f"--trainer.logger={LOGGERS}.WandbLogger")
    assert error == "error: trainer.logger WandbLogger needs the package wandb: pip install -e '.[wandb]'."
    assert not Path("wandb").exists()
