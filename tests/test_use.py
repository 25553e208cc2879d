"""What README and docs show: from training to an export to stock diffusers, each Python snippet as it stands."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from tests.lightning_modules.inference.runs import photo

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks/RESULTS.md"]
README = (ROOT / "README.md").read_text()
# The demo takes minutes; its commands are those of the README, its steps and images are fewer.
SHORT = "--data=tests.helpers.tiny.TinyData --data.init_args.size=32 --trainer.max_steps=2".split()
(TRANSCRIPT,) = (block for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) if ">>> " in block)


def snippets():
    """Blocks of Python by page and line."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^( *)```py\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
            line = text[: found.start()].count("\n") + 2
            yield pytest.param(textwrap.dedent(found[2]), id=f"{page.relative_to(ROOT)}:{line}")


SNIPPETS = list(snippets())


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which the demo was trained and exported as the README says, and what the terminal showed of it.

    Beside it lies what snippets take of the user: photo.jpg.
    """
    folder = tmp_path_factory.mktemp("demo")
    for name in ("checkpoints", "configs", "lightning_modules"):
        (folder / name).symlink_to(ROOT / name)
    Image.fromarray(photo(30, 40)).save(folder / "photo.jpg")
    fit = re.search(r"&& python train.py (fit .*)", README)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main([*fit.split(), *SHORT])
    return folder


@pytest.fixture(scope="module")
def shown(demo):
    """What the commands of the README's transcript print: for each, what it shows there and what it printed."""
    terminal, _ = TRANSCRIPT.split("$ python\n")
    pairs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(demo)
        for command in terminal.removeprefix("$ ").split("\n$ "):
            words, printed = command.strip().split("\n", 1)
            file = demo / "printed.txt"
            with file.open("w") as stream:
                patch.setattr(sys, "stdout", stream)
                train.main(words.removeprefix("onestep ").split())
            pairs.append((printed, file.read_text()))
    return pairs


def without_numbers(text):
    text = re.sub(r"\d(\.\d+)?e-\d+", "NUMBER", text)
    text = re.sub(r"step \d+", "step N", text)
    return re.sub(r"seen at \d+ pixels \(trained at \d+x\d+ pixels\)", "seen at the training resolution", text)


def test_the_transcript_of_the_readme_is_what_happens(demo, shown):
    for expected, printed in shown:
        assert without_numbers(printed.strip()) == without_numbers(expected.strip())
    session = TRANSCRIPT.split("$ python\n")[1]
    code = "\n".join(line.removeprefix(">>> ") for line in session.splitlines() if line.startswith(">>> "))
    done = run_alone(code, demo)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 1e-4
    assert float(session.splitlines()[-1]) < 1e-4


def test_all_snippets_are_found():
    assert len(SNIPPETS) >= 3
    for page in PAGES:  # no Python in a block that says another language, or none
        for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE):
            is_python = re.search(r"^ *(import \w|from \w+(\.\w+)* import )", block, re.MULTILINE)
            assert language == "python" or not is_python, (page.name, block)


@pytest.mark.usefixtures("shown")
@pytest.mark.parametrize("code", SNIPPETS)
def test_a_snippet_runs_as_it_stands_and_says_what_predict_says(code, demo, monkeypatch):
    monkeypatch.chdir(demo)
    names = {}
    exec(code, names)
    if "photo.jpg" in code:
        if not (demo / "out/photo_depth.npy").exists():
            train.main(["predict", "photo.jpg", "--run", "runs/demo", "--output", "out"])
        assert np.abs(names["depth"] - np.load("out/photo_depth.npy")).max() < 1e-4


@pytest.mark.usefixtures("shown")
@pytest.mark.parametrize("mode", ["RGBA", "L"])
def test_the_snippet_for_stock_diffusers_takes_photos_with_transparency_and_in_grey(mode, demo, monkeypatch):
    (code,) = (each.values[0] for each in SNIPPETS if "DiffusionPipeline" in each.values[0])
    (demo / mode).mkdir()
    Image.fromarray(photo(30, 40)).convert(mode).save(demo / mode / "photo.jpg", "png")
    (demo / mode / "exports").symlink_to(demo / "exports")
    monkeypatch.chdir(demo / mode)
    names = {}
    exec(code, names)
    assert names["depth"].shape == (30, 40)


def run_alone(code, folder):
    """Run code in a process that knows nothing of this project and has no network."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    guard = "import sys\nsys.modules['lightning_modules'] = None\n"
    return subprocess.run(
        [sys.executable, "-c", guard + code], cwd=folder, env=environment, capture_output=True, text=True
    )
