"""The wheel works without the repository: what is in it, and the demo's first steps in an empty environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = ("geometry", "lightning_modules", "datamodules")
FOLDERS = (*PACKAGES, "configs", "checkpoints")
FILES = ("train.py", "pyproject.toml", "README.md", "LICENSE")


def call(folder, *command):
    """Run a command without this repository in the way, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: it would take up what earlier builds left in the repository."""
    sources, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, sources)
    # The setuptools of this environment, so that nothing is downloaded.
    call(sources, sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, ".")
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Programs of an environment that has the wheel and what it needs, but not this repository."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    programs = folder / "bin"
    call(folder, sys.executable, "-m", "pip", "--python", programs / "python", "install", "-q", "--no-deps", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    # One path, and not what the .pth files there add, such as an editable installation of this repository.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return programs


def test_the_wheel_holds_every_source_configuration_and_file_of_the_toy_bases(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {file.relative_to(ROOT).as_posix() for folder in PACKAGES for file in (ROOT / folder).rglob("*.py")}
    wanted |= {file.relative_to(ROOT).as_posix() for file in (ROOT / "lightning_modules/examples").iterdir()}
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
    call(tmp_path, environment / "python", "-m", "datamodules.synthetic", "hypersim", "--out", "raw", "--frames", "1")
    assert list(tmp_path.glob("raw/**/*.hdf5"))
