"""What estimators ask of data modules, beside batches. The two meet in this file and in ``geometry.batch``."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from geometry.batch import DatasetInfo
from geometry.errors import InputError


@runtime_checkable
class TrainingData(Protocol):
    """A data module to train and to validate on. What it says is known after ``setup``."""

    @property
    def val_dataset_infos(self) -> Sequence[DatasetInfo]:
        """The data sets to validate on, in the order of their loaders."""

    @property
    def image_sizes(self) -> Mapping[str, tuple[int, int]]:
        """(height, width) of the images of every data set in use, by name; first the one that counts most."""

    @property
    def train_image_sizes(self) -> Collection[tuple[int, int]]:
        """(height, width) of the images to train on, each once."""


@runtime_checkable
class TestData(Protocol):
    """A data module to test on. What it says is known after ``setup``."""

    @property
    def test_dataset_infos(self) -> Sequence[DatasetInfo]:
        """The data sets to test on, in the order of their loaders."""

    @property
    def missing_tests(self) -> Mapping[str, str]:
        """Why data sets that were asked for are left out, by name."""

    def describe_test(self, name: str) -> Mapping[str, Any]:
        """Return what the scores of a data set depend on, beside the model: values that JSON can hold."""

    def skip_tests(self, names: Collection[str]) -> None:
        """Deliver no loader for data sets that are scored already."""

    def test_problems(self, name: str) -> Mapping[str, str]:
        """Return why samples of a data set were left out on this rank, by key."""


@runtime_checkable
class MakesItsData(Protocol):
    """A class of data modules that make their own data, so that sizes are known before there are any."""

    def sizes_with_weights(self, options: Mapping[str, Any]) -> Sequence[tuple[tuple[int, int], float]]:
        """Return (height, width) of the images of every data set to train on, each with its weight.

        Args:
            options: what the class is given to make a data module.
        """


def training_data(data: object) -> TrainingData:
    """Return a data module as one to train or validate on.

    Raises:
        InputError: it lacks what ``TrainingData`` asks for.
    """
    if not isinstance(data, TrainingData):
        raise InputError(_complaint(data, TrainingData))
    return data


def test_data(data: object) -> TestData:
    """Return a data module as one to test on.

    Raises:
        InputError: it lacks what ``TestData`` asks for.
    """
    if not isinstance(data, TestData):
        raise InputError(_complaint(data, TestData))
    return data


def _complaint(data: object, contract: type) -> str:
    members = sorted(name for name in vars(contract) if not name.startswith("_"))
    lacking = ", ".join(name for name in members if not hasattr(data, name))
    return (
        f"the data module {type(data).__name__} lacks {lacking}, which geometry.contract.{contract.__name__} asks for."
    )
