"""The wheel works without the repository: what is in it, and the demo's first steps in an empty environment."""

import zipfile

import pytest

from tests.helpers.wheel import PACKAGES, ROOT, call, environment, wheel

__all__ = ["environment", "wheel"]  # fixtures
pytestmark = pytest.mark.slow


def test_the_wheel_holds_every_source_configuration_and_file_of_the_toy_bases(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {file.relative_to(ROOT).as_posix() for folder in PACKAGES for file in (ROOT / folder).rglob("*.py")}
    wanted |= {file.relative_to(ROOT).as_posix() for file in (ROOT / "lightning_modules/examples").iterdir()}
    wanted |= {file.relative_to(ROOT).as_posix() for file in (ROOT / "lightning_modules/planning/published").iterdir()}
    beside = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "checkpoints").glob("tiny-*/**/*.*")]
    wanted |= {f"onestep/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "train.py", *beside)}
    assert held == wanted


def test_the_demo_runs_outside_the_repository(environment, tmp_path):
    code = "import datamodules, geometry, lightning_modules, onestep.train as t; print(t.__file__, geometry.__file__)"
    assert str(ROOT) not in call(tmp_path, environment / "python", "-c", code)
    short = ("--trainer.max_steps=5", "--data.rooms=20")
    printed = call(tmp_path, environment / "onestep", "fit", "--config", "demo", *short)
    assert "abs_rel" in printed and list(tmp_path.glob("runs/demo/version_0/checkpoints/last.ckpt"))
    photo = environment.parent.glob("lib/python*/site-packages/lightning_modules/examples/room.jpg")
    options = ("--ckpt_path", "runs/demo", "--output", "depth", "--processing-res", "64")
    assert "1 predicted, 0 failed" in call(tmp_path, environment / "onestep", "predict", *photo, *options)


def test_demo_data_are_made_outside_the_repository(environment, tmp_path):
    call(tmp_path, environment / "onestep", "synthesize", "hypersim", "--out", "raw", "--frames", "1")
    assert list(tmp_path.glob("raw/**/*.hdf5"))
