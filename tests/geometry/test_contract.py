import ast
from pathlib import Path

import pytest

from geometry import InputError
from geometry.batch import DatasetInfo
from geometry.contract import TestData as DataToTestOn
from geometry.contract import TrainingData, training_data
from geometry.contract import test_data as as_test_data  # pytest would take a name with test_ for a test

ROOT = Path(__file__).parents[2]
MEMBERS = {name for kind in (DataToTestOn, TrainingData) for name in vars(kind) if not name.startswith("_")}


class Half:
    """Says what it validates on, but not how large images are."""

    val_dataset_infos = (DatasetInfo("tiny"),)


class Whole(Half):
    image_sizes = {"tiny": (8, 8)}  # noqa: RUF012
    train_image_sizes = ((8, 8),)


class Scored:
    test_dataset_infos = (DatasetInfo("tiny"),)
    missing_tests = {}  # noqa: RUF012

    def describe_test(self, name):
        return {}

    def skip_tests(self, names):
        pass


class Complete(Scored):
    def test_problems(self, name):
        return {}


def test_a_data_module_that_has_everything_is_taken_as_it_is():
    for data, check in ((Whole(), training_data), (Complete(), as_test_data)):
        assert check(data) is data


def test_an_error_names_the_data_module_what_it_lacks_and_where_that_is_described():
    with pytest.raises(InputError) as caught:
        training_data(Half())
    assert str(caught.value) == (
        "the data module Half lacks image_sizes, train_image_sizes, which geometry.contract.TrainingData asks for."
    )
    with pytest.raises(InputError, match=r"Scored lacks test_problems, which geometry\.contract\.TestData asks for"):
        as_test_data(Scored())


def test_an_error_names_all_that_is_lacking_at_once():
    with pytest.raises(InputError, match="object lacks image_sizes, train_image_sizes, val_dataset_infos, which"):
        training_data(object())
    lacking = "describe_test, missing_tests, skip_tests, test_dataset_infos, test_problems"
    with pytest.raises(InputError, match=f"Whole lacks {lacking}, which"):
        as_test_data(Whole())


def is_data(node):
    """Whether an expression stands for a data module."""
    if isinstance(node, ast.Call):
        node = node.func
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in ("data", "_data", "datamodule", "training_data", "test_data")


def breaches(code):
    """Lines that write into a data module, or ask it for something that the contract does not promise."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and is_data(node.value):
            if not isinstance(node.ctx, ast.Load) or node.attr not in MEMBERS:
                yield node.lineno
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr", "delattr"):
            asked = node.args[1]
            by_name = isinstance(asked, ast.Constant) and asked.value in MEMBERS
            if by_name or is_data(node.args[0]):
                yield node.lineno


def test_models_and_callbacks_ask_data_modules_by_the_contract_alone_and_write_nothing_into_them():
    files = sorted((ROOT / "lightning_modules").rglob("*.py"))
    files = [file for file in files if "datamodule" in (text := file.read_text()) or "geometry.contract" in text]
    assert len(files) >= 2
    for file in files:
        assert not list(breaches(file.read_text())), file.relative_to(ROOT)


@pytest.mark.parametrize(
    "code",
    [
        "trainer.datamodule.sizes = {}",
        "data.finished |= names",
        "getattr(trainer.datamodule, 'image_sizes', {})",
        "getattr(anything, 'val_dataset_infos', ())",
        "training_data(x).stage",
        "del data.image_sizes",
    ],
)
def test_breaches_are_found(code):
    assert list(breaches(code)) == [1]
    assert not list(breaches("data.skip_tests(names); print(trainer.datamodule)"))
