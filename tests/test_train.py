"""The command line, on a tiny random base and data in memory."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from geometry.errors import InputError
from tests.helpers.tiny import build_base

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def config(base, tmp_path):
    content = {
        "name": "tiny",
        "model": {
            "class_path": "lightning_modules.SingleStepEstimator",
            "init_args": {
                "network": {"class_path": "lightning_modules.StableDiffusion", "init_args": {"base": str(base)}},
                "task": "lightning_modules.Depth",
            },
        },
        "data": {"class_path": "tests.helpers.tiny.TinyData", "init_args": {"size": 16, "num_images": 1}},
        "trainer": {"default_root_dir": str(tmp_path / "runs"), "max_steps": 3, "accelerator": "cpu"},
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def run(*arguments):
    train.main([str(argument) for argument in arguments])


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert "Traceback" not in error
    message = error[error.index("error: ") :]
    assert message.count("\n") == 1, message
    return message.strip()


class TestFit:
    def test_a_first_fit_leaves_checkpoint_config_curves_and_panels(self, config, tmp_path, capsys, caplog):
        caplog.set_level("INFO")
        run("fit", "--config", config, "--trainer.log_every_n_steps=1", "--ckpt_path=last")
        folder = tmp_path / "runs/tiny/version_0"
        assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
        saved = yaml.safe_load((folder / "config.yaml").read_text())
        assert saved["model"]["init_args"]["network"]["init_args"]["noise"] == "zeros"

        events = EventAccumulator(str(folder), {"images": 0}).Reload()
        assert {"train/loss", "train/grad_norm", "train/lr", "train/images_per_s", "val/indoor/abs_rel"} <= set(
            events.Tags()["scalars"]
        )
        assert events.Tags()["images"] == ["val/indoor", "val/outdoor"]
        assert [event.step for event in events.Images("val/indoor")] == [3]
        (text,) = events.Tensors("config/text_summary")
        assert b"max_steps: 3" in text.tensor_proto.string_val[0]

        assert re.search(r"indoor +0\.\d{4} +0\.\d{4} +\d\.\d{3}", capsys.readouterr().out)
        assert "starting afresh" in caplog.text
        assert "Tip" not in caplog.text

    def test_last_goes_on_where_the_newest_run_stopped_and_a_new_fit_touches_no_old_run(self, config, tmp_path):
        run("fit", "--config", config)
        run("fit", "--config", config, "--trainer.max_steps=2")
        run("fit", "--config", config, "--trainer.max_steps=5", "--ckpt_path=last")
        runs = tmp_path / "runs/tiny"
        steps = {
            folder.name: torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]
            for folder in runs.iterdir()
        }
        assert steps == {"version_0": 3, "version_1": 5}

    def test_the_config_that_a_run_saved_repeats_it(self, config, tmp_path):
        run("fit", "--config", config, "--model.warmup_steps=7", "--trainer.deterministic=true", "--ema.decay=0.9")
        run("fit", "--config", tmp_path / "runs/tiny/version_0/config.yaml")
        first, second = (
            torch.load(tmp_path / f"runs/tiny/version_{number}/checkpoints/last.ckpt", weights_only=True)
            for number in (0, 1)
        )
        for part in ("state_dict", "ema_state_dict"):
            assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])

    def test_any_logger_gets_the_curves_and_the_config(self, config, tmp_path):
        logger = "--trainer.logger=lightning.pytorch.loggers.CSVLogger"
        run(
            *("fit", "--config", config, logger, f"--trainer.logger.save_dir={tmp_path}/elsewhere"),
            *("--trainer.log_every_n_steps=1", "--ema.decay=0.9"),
        )
        (folder,) = (tmp_path / "elsewhere").rglob("version_0")
        curves = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
        assert {"train/loss", "train/loss_tiny", "train/update_ratio", "train/ema_distance"} <= set(curves)
        assert yaml.safe_load((folder / "hparams.yaml").read_text())["trainer"]["max_steps"] == 3

    def test_normals_are_loaded_because_the_task_needs_them(self, config, tmp_path):
        run("fit", "--config", config, "--model.task=lightning_modules.Normals", "--data.modalities=[depth]")
        assert (tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt").is_file()

    def test_a_data_module_without_the_option_modalities_and_a_run_without_checkpoints_are_fine(self, config, tmp_path):
        run("fit", "--config", config, "--data=tests.test_train.PlainData", "--trainer.enable_checkpointing=false")
        assert not list(tmp_path.rglob("*.ckpt"))

    def test_losses_and_optimisers_are_chosen_in_the_config(self, config, tmp_path):
        run(
            *("fit", "--config", config, "--model.task.loss=ScaleShiftInvariantLoss"),
            *("--model.task.loss.positive_scale=true", "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1"),
        )
        saved = yaml.safe_load((tmp_path / "runs/tiny/version_0/config.yaml").read_text())["model"]["init_args"]
        assert saved["task"]["init_args"]["loss"]["init_args"]["positive_scale"] is True
        assert saved["optimizer"]["class_path"] == "torch.optim.SGD"


from tests.helpers.tiny import TinyData  # noqa: E402 - the class below is named on the command line


class PlainData(TinyData):
    def __init__(self):
        super().__init__()


class TestValidate:
    def test_validate_prints_every_score_and_writes_nothing(self, config, tmp_path, capsys):
        run("fit", "--config", config)
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        run("validate", "--config", config, "--ckpt_path=last")
        assert re.search(r"delta1 +0\.\d{4} +0\.\d{4}", capsys.readouterr().out)
        assert sorted(tmp_path.rglob("*")) == before

    def test_last_without_a_run_is_an_error(self, config, capsys):
        assert "there is no checkpoint in" in error_of(capsys, "validate", "--config", config, "--ckpt_path=last")


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--model=lightning_modules.Nothing"], "'lightning_modules' has no attribute 'Nothing'"),
            (["--model.network.bse=x"], "there is no option bse"),
            (["--model.task=Nothing"], "there is no class Nothing"),
            (["--model.network.noise=loud"], "noise: expected one of"),
            (["--trainer.max_stps=3"], "unrecognized arguments: --trainer.max_stps"),
            (["--trainer.max_steps=many"], "trainer.max_steps: expected int, got many"),
            (["--trainer.precision=16-mixed", "--trainer.strategy=nothing"], "nothing"),
            (["--trainer.gradient_clip_val=1"], "gradient_clip_norm of the model"),
            (["--model.network.base=nowhere"], "there is no base folder nowhere"),
            (["--data.size=30"], "images of 30x30 pixels .* multiples of 4"),
            (["--ckpt_path=nowhere.ckpt"], "nowhere.ckpt"),
            (["--ckpt_path=checkpoints/tiny-stable-diffusion"], "network.init_args.base checkpoints/tiny"),
        ],
    )
    def test_one_clear_message_and_status_2(self, config, capsys, arguments, message):
        assert re.search(message, error_of(capsys, "fit", "--config", config, *arguments))

    def test_a_base_without_a_unet(self, config, base, tmp_path, capsys):
        own = shutil.copytree(base, tmp_path / "own")
        shutil.rmtree(own / "unet")
        error = error_of(capsys, "fit", "--config", config, f"--model.network.base={own}")
        assert f"the base folder {own} has no unet/config.json" in error

    def test_a_data_set_without_normals(self, config, capsys):
        arguments = ("--model.task=lightning_modules.Normals", "--data=tests.test_train.NoNormals")
        error = error_of(capsys, "fit", "--config", config, *arguments)
        assert "task Normals needs normals, but data set 'tiny' does not deliver it" in error

    def test_a_config_that_does_not_exist_or_is_no_yaml_or_holds_a_strange_key(self, tmp_path, capsys):
        assert "nowhere.yaml: no such file" in error_of(capsys, "fit", "--config", "nowhere.yaml")
        broken = tmp_path / "broken.yaml"
        broken.write_text("model: [")
        assert "while parsing" in error_of(capsys, "fit", "--config", broken)
        broken.write_text("modl: 3")
        assert "does not accept option 'modl'" in error_of(capsys, "fit", "--config", broken)

    def test_no_command_or_a_strange_one(self, capsys):
        assert "fit" in error_of(capsys)
        assert "there is no command 'fti'" in error_of(capsys, "fti")

    def test_an_error_in_a_loader_is_as_clear_and_a_bug_keeps_its_traceback(self, config, capsys, monkeypatch):
        def fail(self):
            raise InputError(
                "Caught InputError in DataLoader worker process 0.\nTraceback\nInputError: shard 3 is short"
            )

        monkeypatch.setattr(TinyData, "train_dataloader", fail)
        assert error_of(capsys, "fit", "--config", config) == "error: shard 3 is short"
        monkeypatch.setattr(TinyData, "train_dataloader", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("fit", "--config", config)


class NoNormals(TinyData):
    def __init__(self):
        super().__init__(modalities=["depth"])


class TestHelp:
    def help_of(self, capsys, *arguments):
        with pytest.raises(SystemExit) as ended:
            run(*arguments)
        assert ended.value.code in (0, None)
        return capsys.readouterr().out

    @pytest.mark.parametrize(
        "arguments",
        [
            ("fit", "--help"),
            ("fit", "--help-all"),
            ("test", "--help_all"),
            ("validate", "--help"),
            ("test", "--help"),
            ("test", "--data.help=datamodules.Benchmarks"),
            ("test", "--model.help=lightning_modules.SavedPredictions"),
            ("fit", "--model.help=lightning_modules.SingleStepEstimator"),
            ("fit", "--model=SingleStepEstimator", "--model.network.help=lightning_modules.StableDiffusion"),
            ("fit", "--model=SingleStepEstimator", "--model.task.help=lightning_modules.Depth"),
            ("fit", "--model=SingleStepEstimator", "--model.task.help=lightning_modules.Normals"),
            ("fit", "--data.help=datamodules.GeometryDataModule"),
        ],
        ids=lambda arguments: " ".join(arguments),
    )
    def test_every_option_has_a_sentence(self, capsys, monkeypatch, arguments):
        monkeypatch.setenv("COLUMNS", "200")
        text = self.help_of(capsys, *arguments)
        options = re.findall(r"^  (-\S.*?)(?=^  -|^\S|^$|\Z)", text, flags=re.MULTILINE | re.DOTALL)
        assert len(options) >= 1
        for option in options:
            lines = option.splitlines()
            head, *tail = re.split(r"  +", lines[0], maxsplit=1) + [line.strip() for line in lines[1:]]
            sentence = re.sub(r"\((required, )?type: .*", "", " ".join(tail), flags=re.DOTALL).strip()
            assert len(sentence.split()) >= 2, f"{head}: {sentence!r}"
            assert ":class:" not in sentence and "``" not in sentence

    def test_the_printed_config_is_complete_and_can_be_used(self, config, tmp_path, capsys):
        printed = self.help_of(capsys, "fit", "--config", config, "--print_config")
        content = yaml.safe_load(printed)
        assert content["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 3e-5
        assert content["trainer"]["use_distributed_sampler"] is False
        again = tmp_path / "again.yaml"
        again.write_text(printed)
        assert self.help_of(capsys, "fit", "--config", again, "--print_config") == printed

    def test_the_short_help_says_what_a_newcomer_sets_and_where_the_rest_is(self, capsys):
        text = self.help_of(capsys, "fit", "--help")
        assert text.count("\n") < 130  # 91 in a process that knows of no further estimators, as other tests define
        for option in ("--name", "--config", "--trainer.max_steps", "--trainer.precision", "--ckpt_path", "--help_all"):
            assert f"  {option} " in text or f", {option} " in text, option
        assert "--data.batch_size" in text and "--trainer.gradient_clip_val" not in text
        assert "--trainer.gradient_clip_val" in self.help_of(capsys, "fit", "--help_all")


def test_the_entry_point_is_thin():
    assert len(Path(train.__file__).read_text().splitlines()) < 250
