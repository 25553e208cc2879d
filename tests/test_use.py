"""What README and docs show: from training to an export to stock diffusers, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from tests.lightning_modules.inference.runs import photo

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# The demo takes minutes; its commands are those of the README, its steps and images are fewer.
SHORT = "--data=tests.helpers.tiny.TinyData --data.init_args.size=32 --trainer.max_steps=2".split()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which the demo was trained as the README says."""
    folder = tmp_path_factory.mktemp("demo")
    for name in ("checkpoints", "configs", "lightning_modules"):
        (folder / name).symlink_to(ROOT / name)
    fit = re.search(r"&& python train.py (fit .*)", README)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main([*fit.split(), *SHORT])
    return folder


def without_numbers(text):
    text = re.sub(r"\d(\.\d+)?e-\d+", "NUMBER", text)
    text = re.sub(r"step \d+", "step N", text)
    return re.sub(r"seen at \d+ pixels \(trained at \d+x\d+ pixels\)", "seen at the training resolution", text)


def test_the_transcript_of_the_readme_is_what_happens(demo, monkeypatch, capsys):
    transcript = next(
        block for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) if "DiffusionPipeline" in block
    )
    terminal, session = transcript.split("$ python\n")
    monkeypatch.chdir(demo)
    for command in terminal.removeprefix("$ ").split("\n$ "):
        words, shown = command.strip().split("\n", 1)
        capsys.readouterr()
        train.main(words.removeprefix("onestep ").split())
        assert without_numbers(capsys.readouterr().out.strip()) == without_numbers(shown.strip())

    code = "\n".join(line.removeprefix(">>> ") for line in session.splitlines() if line.startswith(">>> "))
    done = run_alone(code, demo)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 1e-4
    assert float(session.splitlines()[-1]) < 1e-4


def test_the_python_of_the_documentation_predicts_from_a_run_and_from_an_export(demo, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/inference.md").read_text(), re.DOTALL)
    ours = next(block for block in blocks if "Predictor.load" in block)
    stock = next(block for block in blocks if "DiffusionPipeline" in block)
    assert len([line for line in ours.splitlines() if line]) == 3
    monkeypatch.chdir(demo)
    Image.fromarray(photo(30, 40)).save("photo.jpg")
    train.main(["export", "--ckpt_path", "runs/demo", "--output", "exports/demo", "--overwrite"])

    found = []
    for source in ("runs/demo", "exports/demo"):
        names = {}
        exec(ours.replace('"runs/demo"', f'"{source}"'), names)
        found.append(names["depth"])
    done = run_alone(f"{stock}\nimport numpy\nnumpy.save('stock.npy', depth)", demo)
    assert done.returncode == 0, done.stderr[-2000:]
    assert found[0].shape == (30, 40)
    for other in (found[1], np.load("stock.npy")):
        assert np.abs(found[0] - other).max() < 1e-4


def run_alone(code, folder):
    """Run code in a process that knows nothing of this project and has no network."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    guard = "import sys\nsys.modules['lightning_modules'] = None\n"
    return subprocess.run(
        [sys.executable, "-c", guard + code], cwd=folder, env=environment, capture_output=True, text=True
    )
