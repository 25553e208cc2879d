import pytest

from geometry import InputError
from geometry.batch import DatasetInfo
from geometry.contract import test_data as as_test_data  # pytest would take a name with test_ for a test
from geometry.contract import training_data


class Half:
    """Says what it validates on, but not how large images are."""

    val_dataset_infos = (DatasetInfo("tiny"),)


class Whole(Half):
    image_sizes = {"tiny": (8, 8)}  # noqa: RUF012


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
        "the data module Half lacks image_sizes, which geometry.contract.TrainingData asks for."
    )
    with pytest.raises(InputError, match=r"Scored lacks test_problems, which geometry\.contract\.TestData asks for"):
        as_test_data(Scored())


def test_an_error_names_all_that_is_lacking_at_once():
    with pytest.raises(InputError, match="object lacks image_sizes, val_dataset_infos, which"):
        training_data(object())
    lacking = "describe_test, missing_tests, skip_tests, test_dataset_infos, test_problems"
    with pytest.raises(InputError, match=f"Whole lacks {lacking}, which"):
        as_test_data(Whole())
