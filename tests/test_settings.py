"""Wrong values of the right type: each is one line before anything is computed, and what is right still works."""

import os
import re

import pytest
import torch
import yaml

from tests.test_train import base, config, error_of, run  # noqa: F401 - fixtures

pytestmark = pytest.mark.filterwarnings("ignore")


def change(config, **sections):  # noqa: F811
    """Change whole options of sections of a configuration file."""
    content = yaml.safe_load(config.read_text())
    for name, value in sections.items():
        content[name] = content[name] | value if isinstance(value, dict) else value
    config.write_text(yaml.safe_dump(content))


class TestWhatWorks:
    def test_one_callback_need_not_be_a_list(self, config):  # noqa: F811
        monitor = "lightning.pytorch.callbacks.LearningRateMonitor"
        run("fit", "--config", config, "--trainer.callbacks", monitor)
        change(config, trainer={"callbacks": {"class_path": monitor}})
        run("fit", "--config", config)

    def test_counting_epochs_alone_validates_at_their_ends(self, config, tmp_path):  # noqa: F811
        run("fit", "--config", config, "--trainer.check_val_every_n_epoch=1", "--trainer.max_steps=9")
        saved = yaml.safe_load((tmp_path / "runs/tiny/version_0/config.yaml").read_text())["trainer"]
        assert saved["val_check_interval"] == 1.0

    def test_without_either_it_is_every_thousand_batches(self, config, tmp_path):  # noqa: F811
        run("fit", "--config", config)
        saved = yaml.safe_load((tmp_path / "runs/tiny/version_0/config.yaml").read_text())["trainer"]
        assert (saved["val_check_interval"], saved["check_val_every_n_epoch"]) == (1000, None)

    @pytest.mark.parametrize("text", ["", "# batch_size: 4\n# all commented out\n", "---\n", "null\n"])
    def test_an_overlay_without_settings_changes_nothing(self, config, tmp_path, text):  # noqa: F811
        overlay = tmp_path / "overlay.yaml"
        overlay.write_text(text)
        run("fit", "--config", config, "--config", overlay)
        assert (tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt").is_file()

    def test_tilde_means_home_in_every_path_of_a_run(self, config, tmp_path, monkeypatch):  # noqa: F811
        monkeypatch.setenv("HOME", str(tmp_path))
        run("fit", "--config", config, "--trainer.default_root_dir=~/here", "--checkpoints.folder=~/kept")
        assert (tmp_path / "here/tiny/version_0/config.yaml").is_file()
        last = tmp_path / "kept/last.ckpt"
        assert torch.load(last, weights_only=True)["global_step"] == 3
        run("fit", "--config", config, "--ckpt_path=~/kept/last.ckpt", "--trainer.max_steps=4")
        run("fit", "--config", config, "--model.init_from=~/kept/last.ckpt", "--trainer.default_root_dir=~/here")
        run("validate", "--config", config, "--ckpt_path=last", "--trainer.default_root_dir=~/here")

    def test_a_checkpoint_cannot_choose_another_estimator(self, config, tmp_path, capsys):  # noqa: F811
        run("fit", "--config", config)
        file = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
        checkpoint = torch.load(file, weights_only=True)
        checkpoint["hyper_parameters"] = {"_class_path": "this_module_is_imported.Never", "warmup_steps": 1}
        torch.save(checkpoint, file)
        run("validate", "--config", config, f"--ckpt_path={file}")


class TestMistakes:
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            *[
                (f"trainer.precision={name}", "trainer.precision .* bf16-mixed")
                for name in (
                    "bf16-true",
                    "16-true",
                    "64-true",
                    "transformer-engine",
                    "transformer-engine-float16",
                    "64",
                )
            ],
            ("seed_everything=-1", "seed_everything must lie between 0 and 4294967295"),
            ("seed_everything=4294967296", "seed_everything must lie between 0 and 4294967295"),
            ("trainer.check_val_every_n_epoch=0", "check_val_every_n_epoch must be at least 1"),
            ("trainer.val_check_interval=0", "val_check_interval must be at least 1"),
            ("trainer.accumulate_grad_batches=0", "accumulate_grad_batches must be at least 1"),
            ("trainer.accumulate_grad_batches=-1", "accumulate_grad_batches must be at least 1"),
            ("trainer.log_every_n_steps=0", "log_every_n_steps must be at least 1"),
            ("trainer.min_steps=-2", "min_steps must be at least 0"),
            ("trainer.num_sanity_val_steps=-2", "num_sanity_val_steps must be at least -1"),
            ("trainer.limit_train_batches=0", "leaves fit nothing to do"),
            ("trainer.max_steps=0", "trainer.max_steps is 0, which leaves fit nothing to do"),
            ("trainer.max_epochs=0", "trainer.max_epochs is 0, which leaves fit nothing to do"),
            ("trainer.max_time={}", "trainer.max_time is 0, which leaves fit nothing to do"),
            ("trainer.devices=1000000000000", "trainer.devices must be at most"),
            ("trainer.num_nodes=1000000000000", "trainer.num_nodes must be at most"),
            ("trainer.model_registry=x", "model_registry changes nothing in this project: export has"),
            ("trainer.gradient_clip_algorithm=norm", "set gradient_clip_norm of the model"),
            ("model.network.base=~nobody-has-this-name/x", "there is no such user's folder"),
            (f"model.network.base={'x' * 300}", "too long for a path"),
            ("model.network.lora={rank: 1000000000000}", "lora needs 1 <= rank"),
            ("model=lightning_modules.DiffusionEstimator --model.sampling=[]", "model.sampling holds settings"),
            (
                'data=datamodules.GeometryDataModule --data.datasets=[{"path":"x"}] --data.augmentation=[]',
                "data.augmentation holds settings",
            ),
            (
                'data=datamodules.GeometryDataModule --data.datasets=[{"path":"x"}] --data.batch_size=null',
                "data.batch_size needs a value, not null",
            ),
            ("model.network.noise=null", "model.network.noise needs a value, not null"),
            ("model.optimizer=null", "model.optimizer needs a value, not null"),
            ("trainer.accelerator=tpu", "the trainer cannot be set up like this"),
            ("trainer.default_root_dir=", "trainer.default_root_dir is empty"),
            ("trainer.default_root_dir=/dev/null/x", "the run's folder /dev/null/x/tiny cannot be written to"),
            ("trainer.default_root_dir=/proc/x", "the run's folder /proc/x/tiny cannot be written to"),
            ("checkpoints.folder=/dev/null/x", "checkpoints.folder /dev/null/x cannot be written to"),
            ("checkpoints.folder=", "checkpoints.folder is empty"),
            ("name=", "--name '' is no name"),
            ("name=..", "--name '..' is no name"),
            ("name=a/../../b", "is no name"),
            ("name=${oc.env:NOPE}", "name: .* is resolved in files alone"),
            (f"name={'x' * 300}", "cannot be written to .*too long"),
            ("checkpoints.monitor=val/indoor/abs_rel", "checkpoints.keep is 0"),
            ("panels.num_images=-1", "num_images of at least 0"),
            ("panels.max_width_px=0", "max_width_px of at least 1"),
            ("model.decay_steps=0", "decay_steps and max_skips_in_a_row of at least 1"),
            ("model.max_skips_in_a_row=0", "decay_steps and max_skips_in_a_row of at least 1"),
            ("model.gradient_clip_norm=-1", "gradient_clip_norm above 0"),
            ("model.gradient_clip_norm=.nan", "gradient_clip_norm above 0"),
            ("model.optimizer.lr=-1", "model.optimizer cannot be made like this: Invalid learning rate"),
            ("model.optimizer.lr=.inf", "model.optimizer needs a finite lr"),
            ("model.optimizer.betas=[2,2]", "model.optimizer cannot be made like this"),
            ("model.init_from=", "init_from is empty"),
            ("model.init_from=train.py", "init_from train.py: train.py cannot be read as a checkpoint"),
            ("ckpt_path=", "--ckpt_path is empty"),
            ("ckpt_path=best", "--ckpt_path best: there is no checkpoint in"),
            ("ckpt_path=hpc", "give the path of a checkpoint, or last"),
            ("ckpt_path=train.py", "the file is damaged: it is cut off, or no checkpoint"),
            ("config=", "--config: a configuration holds sections"),
        ],
    )
    def test_an_option_out_of_range_is_one_line_before_training(
        self,
        config,  # noqa: F811
        capsys,
        tmp_path,
        option,
        message,
    ):
        words = [f"--{word}" for word in option.split(" --")]
        assert re.search(message, error_of(capsys, "fit", "--config", config, *words))
        assert not list(tmp_path.rglob("*.ckpt"))

    def test_epochs_and_batches_are_not_both_counted(self, config, capsys):  # noqa: F811
        options = ("--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=1000")
        assert "Set val_check_interval to 1.0" in error_of(capsys, "fit", "--config", config, *options)

    @pytest.mark.parametrize("monitor", ["val/nowhere/abs_rel", "val/indoor/abs_rle", "abs_rel", "val_loss"])
    def test_a_monitor_that_no_metric_has_is_said_before_training(self, config, capsys, tmp_path, monitor):  # noqa: F811
        options = (f"--checkpoints.monitor={monitor}", "--checkpoints.keep=1")
        error = error_of(capsys, "fit", "--config", config, *options)
        assert f"monitors '{monitor}', which no metric is named" in error
        assert "val/outdoor/abs_rel" in error
        assert not list(tmp_path.rglob("*.ckpt"))

    def test_a_curve_of_training_that_nothing_logs_is_said_at_the_first_logged_step(self, config, capsys):  # noqa: F811
        options = ("--checkpoints.keep=1", "--trainer.log_every_n_steps=1", "--checkpoints.monitor")
        error = error_of(capsys, "fit", "--config", config, *options[:2], f"{options[2]}=train/lossy")
        assert "Checkpoints monitors 'train/lossy', which nothing logs" in error and "train/loss," in error
        run("fit", "--config", config, *options[:2], f"{options[2]}=train/loss")

    def test_a_monitor_without_validation(self, config, capsys):  # noqa: F811
        options = ("--checkpoints.monitor=val/indoor/abs_rel", "--checkpoints.keep=1", "--trainer.limit_val_batches=0")
        assert "there is nothing to validate on" in error_of(capsys, "fit", "--config", config, *options)

    def test_another_callback_that_watches_no_metric(self, config, capsys):  # noqa: F811
        stopping = "--trainer.callbacks=lightning.pytorch.callbacks.EarlyStopping"
        error = error_of(capsys, "fit", "--config", config, stopping, "--trainer.callbacks.monitor=val_loss")
        assert "EarlyStopping monitors 'val_loss'" in error

    @pytest.mark.parametrize(
        "option", ["--data=tests.test_settings.NothingToValidate", "--trainer.limit_val_batches=0"]
    )
    def test_validating_on_nothing_is_no_success(self, config, capsys, option):  # noqa: F811
        assert "noth" in error_of(capsys, "validate", "--config", config, option)

    def test_a_data_set_that_is_lost_is_no_success_of_validate_and_no_end_of_fit(self, config, capsys):  # noqa: F811
        options = ("--config", config, "--data=tests.test_settings.OneIsLost")
        assert "no score of the validation data outdoor: none of its images" in error_of(capsys, "validate", *options)
        with pytest.warns(UserWarning, match="no score of the validation data outdoor") as told:
            run("fit", *options, "--trainer.val_check_interval=2")
        assert "outdoor/abs_rel nan (no score so far)" in capsys.readouterr().out
        assert len([warning for warning in told if "no score" in str(warning.message)]) == 2, "and at the end"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("- 1\n", "overlay.yaml: a configuration holds sections"),
            ("3\n", "overlay.yaml: a configuration holds sections"),
            ("trainer: [", "overlay.yaml: while parsing"),
            ("name: 2001-13-45\n", "overlay.yaml: it holds a date that is none"),
            ("trainer: null\n", "the section trainer holds no options"),
            ("trainer: 3\n", "the section trainer holds no options"),
            ("name: ${oc.env:ONESTEP_NOPE}\n", "name needs the environment variable ONESTEP_NOPE, which is not set"),
            (
                "data: {init_args: {size: '${oc.env:ONESTEP_NOPE}'}}\n",
                "data.init_args.size needs the environment variable ONESTEP_NOPE",
            ),
            ("name: ${nope}\n", "overlay.yaml: Interpolation key 'nope' not found"),
            ("\x89PNG", "overlay.yaml"),
        ],
    )
    def test_a_broken_overlay_is_named(self, config, capsys, tmp_path, text, message):  # noqa: F811
        overlay = tmp_path / "overlay.yaml"
        overlay.write_bytes(text.encode("latin-1"))
        assert message in error_of(capsys, "fit", "--config", config, "--config", overlay)

    def test_a_run_folder_that_is_a_file(self, config, capsys, tmp_path):  # noqa: F811
        (tmp_path / "runs").write_text("")
        assert "runs/tiny cannot be written to" in error_of(capsys, "fit", "--config", config)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_run_folder_that_may_not_be_written(self, config, capsys, tmp_path):  # noqa: F811
        (tmp_path / "runs").mkdir(mode=0o500)
        assert "cannot be written to" in error_of(capsys, "fit", "--config", config)


from tests.helpers.tiny import TinyData  # noqa: E402 - the class below is named on the command line


class NothingToValidate(TinyData):
    @property
    def val_dataset_names(self):
        return []

    def val_dataloader(self):
        return []


class OneIsLost(TinyData):
    def val_dataloader(self):
        return [super().val_dataloader()[0], []]


@pytest.mark.parametrize("option", ["config", "model", "trainer", "trainer.logger", "ckpt_path"])
def test_a_pipe_or_device_in_place_of_any_option_is_not_waited_for(config, tmp_path, capsys, option):  # noqa: F811
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", "/dev/zero"):
        assert "no regular file" in error_of(capsys, "fit", "--config", config, f"--{option}={file}")


@pytest.mark.parametrize("option", ["config", "model", "trainer", "ema"])
def test_a_file_of_another_kind_in_place_of_any_option_is_one_line(config, tmp_path, capsys, option):  # noqa: F811
    (tmp_path / "noise").write_bytes(b"\xff\xfe\x00\x80")
    assert "invalid start byte" in error_of(capsys, "fit", "--config", config, f"--{option}={tmp_path / 'noise'}")


def test_a_message_that_repeats_thousands_of_letters_is_cut(config, capsys):  # noqa: F811
    told = error_of(capsys, "fit", "--config", config, f"--model.task={'[' * 5000}")
    assert "there is no class" in told and len(told) < 1600
