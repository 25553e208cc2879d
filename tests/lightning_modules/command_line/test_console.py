import logging

import pytest

from geometry.command_line.messages import leave, plain_help, readable_error
from geometry.errors import InputError
from lightning_modules.command_line.console import input_error_behind, quieten

NESTED = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning_modules.estimator.Estimator'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'lightning_modules.SingleStepEstimator':
        Parser key "network":
          Problem with given class_path 'lightning_modules.StableDiffusion':
            Parser key "noise":
              Expected a typing.Literal['zeros', 'none']. Got value: loud
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='network.noise', val='loud')"""


def test_an_error_deep_in_a_config_says_where_and_what_in_one_line():
    assert readable_error(NESTED) == (
        "model: lightning_modules.SingleStepEstimator: network: lightning_modules.StableDiffusion: "
        "noise: expected one of ['zeros', 'none'], got loud"
    )


def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it():
    message = (
        'Parser key "optimizer":\n  Type typing.Callable[[collections.abc.Iterable], torch.optim.Optimizer] expects a '
        "function or a callable class: No module named 'bitsandbytes'. Got value: bitsandbytes.optim.AdamW8bit"
    )
    assert readable_error(message) == (
        "optimizer: bitsandbytes.optim.AdamW8bit needs the package bitsandbytes, which is not installed: "
        "pip install bitsandbytes"
    )


@pytest.mark.parametrize("message", ["", "Errors:", "plain words", "two\nlines"])
def test_no_error_is_swallowed(message):
    assert readable_error(message).split() == message.split()


def test_help_is_free_of_markup_and_of_defaults_that_do_not_hold():
    text = "How often, see :class:`~lightning.pytorch.Trainer` and ``max_steps``. Default: ``50``. And more."
    assert plain_help(text) == "How often, see Trainer and max_steps. And more."
    assert plain_help('Size. Default: ``"auto"``.') == "Size."
    assert plain_help("Given by Default: nobody") == "Given by Default: nobody"


def test_an_error_in_a_loader_process_loses_its_traceback():
    wrapped = (
        "Caught InputError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "a.py", line 3, in f\n    raise InputError("x")\ngeometry.errors.InputError: shard 3 is short\n'
    )
    assert input_error_behind(InputError(wrapped)) == "shard 3 is short"


def test_a_mistake_is_found_behind_other_exceptions_and_a_bug_is_none():
    assert input_error_behind(InputError("shard 3 is short")) == "shard 3 is short"
    try:
        try:
            raise InputError("no such folder")
        except InputError as error:
            raise ValueError("Does not validate against any of the Union subtypes") from error
    except ValueError as error:
        assert input_error_behind(error) == "no such folder"
    assert input_error_behind(ValueError("a bug")) is None


def test_leaving_prints_one_message_and_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        leave("no such file")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no such file\n"


def test_advertisements_are_dropped_and_news_kept(caplog):
    quieten()
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level("INFO"):
        log.info("💡 Tip: install something")
        log.info("Restored all states")
    assert [record.getMessage() for record in caplog.records] == ["Restored all states"]


def test_an_error_is_one_line_whatever_names_it_holds(capsys):
    with pytest.raises(SystemExit) as ended:
        leave("runs/a\x1b[2J\nerror: b is damaged.")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: runs/a\\x1b[2J\\nerror: b is damaged.\n"
