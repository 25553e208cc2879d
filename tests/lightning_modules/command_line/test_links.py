import pytest
from jsonargparse import ArgumentParser

from lightning_modules.command_line.links import modalities_of
from lightning_modules.tasks import Depth, Task


class Outside(Depth):
    """A task from elsewhere with a modality of its own class."""


def task_of(text):
    parser = ArgumentParser()
    parser.add_argument("--task", type=Task)
    return parser.parse_string(f"task: {text}").task


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lightning_modules.Depth", ["depth"]),
        ("{class_path: lightning_modules.Normals, init_args: {frame: dsine}}", ["normals"]),
        ("tests.lightning_modules.command_line.test_links.Outside", ["depth"]),
        (
            "{class_path: lightning_modules.Task, init_args: {modality: {class_path: geometry.modalities.Normals}}}",
            ["normals"],
        ),
        (
            "{class_path: lightning_modules.Task, init_args: {modality: geometry.modalities.depth.Depth}}",
            ["depth"],
        ),
    ],
)
def test_data_are_asked_for_the_modality_that_the_configured_task_predicts(text, expected):
    assert modalities_of(task_of(text)) == expected
