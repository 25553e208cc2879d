"""Generic code knows no modality by name: a new one is a file in geometry/modalities and nothing else.

Names and string literals count. Comments and docstrings may mention depth and normals as examples.
"""

import ast
import re
from pathlib import Path

import pytest

from geometry.modalities import registered

ROOT = Path(__file__).parents[1]
GENERIC = (
    "datamodules/benchmarks/datamodule.py",
    "datamodules/benchmarks/loader.py",
    "datamodules/benchmarks/protocol.py",
    "synthetic_scenes/datamodule.py",
    "datamodules/geometry_datamodule.py",
    "datamodules/preparation/[!fo]*.py",  # all but folder_options.py and options.py, which are of single data sets
    "datamodules/prepare.py",
    "datamodules/shards/[!v]*.py",  # all but version_1.py, which is of that version alone
    "datamodules/sources/fitting.py",
    "datamodules/sources/folder_frames.py",
    "datamodules/sources/hypersim_targets/__init__.py",
    "datamodules/sources/hypersim_targets/reader.py",
    "datamodules/sources/protocol.py",
    "datamodules/sources/resizing.py",
    "datamodules/streaming/*.py",
    "geometry/batch.py",
    "geometry/contract.py",
    "geometry/masked.py",
    "geometry/modalities/modality.py",
    "geometry/modalities/statistics.py",
    "geometry/modalities/stored.py",
    "lightning_modules/command_line/*.py",
    "lightning_modules/diffusion.py",
    "lightning_modules/estimator.py",
    "lightning_modules/evaluation/*.py",
    "lightning_modules/export/*.py",
    "lightning_modules/inference/batch_run.py",
    "lightning_modules/inference/loading.py",
    "lightning_modules/inference/predictor.py",
    "lightning_modules/inference/results.py",
    "lightning_modules/losses/base.py",
    "lightning_modules/metrics/base.py",
    "lightning_modules/networks/*.py",
    "lightning_modules/app/page.py",
    "lightning_modules/planning/*.py",
    "lightning_modules/single_step.py",
    "lightning_modules/training/*.py",
)
PARTS_THAT_NAME = ("id", "attr", "arg", "name", "asname", "module")


def words_of(text):
    """Single words in lower case: of a sentence, of CamelCase and of snake_case."""
    text = re.sub(r"[\w-]+/[\w.-]+", "", text)  # the id of a published model
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)}


def docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value


def said_in(code):
    """Every name and string literal of a program, with its line."""
    tree = ast.parse(code)
    prose = {id(docstring) for docstring in docstrings(tree)}
    for node in ast.walk(tree):
        texts = [getattr(node, part, None) for part in PARTS_THAT_NAME]
        if isinstance(node, ast.Constant) and id(node) not in prose:
            texts.append(node.value)
        for text in texts:
            if isinstance(text, str):
                yield getattr(node, "lineno", 0), text


def mentions(code, names):
    return [(line, text) for line, text in said_in(code) if words_of(text) & set(names)]


@pytest.mark.parametrize("pattern", GENERIC)
def test_generic_code_names_no_modality(pattern):
    files = sorted(ROOT.glob(pattern))
    assert files, "the file was moved: mend the list"
    names = [name for name in registered() if "test" not in name]
    assert {"depth", "normals"} <= set(names)
    for file in files:
        assert not mentions(file.read_text(encoding="utf-8"), names), file.relative_to(ROOT)


@pytest.mark.parametrize(
    "code",
    [
        'if modality == "depth": pass',
        "def load(depth_m): pass",
        "batch.depth",
        "class DepthLoss: pass",
        "from geometry.modalities.depth import Other",
        "f(depth=3)",
        'raise Mistake(f"{name} has no depth")',
    ],
)
def test_names_and_literals_are_found(code):
    assert mentions(code, ["depth"])


@pytest.mark.parametrize(
    "code", ['"""Loads depth."""', "x = 1  # depth", "def f():\n    'Returns depth.'", "in_depths = 1"]
)
def test_prose_and_other_words_are_not(code):
    assert not mentions(code, ["depth"])
