"""The wheel, built and installed as a user has it: in an environment that does not know this repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("geometry", "lightning_modules", "datamodules", "synthetic_scenes")
FOLDERS = (*PACKAGES, "configs", "checkpoints")
FILES = ("train.py", "pyproject.toml", "README.md", "LICENSE")


def call(folder, *command):
    """Run a command without this repository in the way, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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
