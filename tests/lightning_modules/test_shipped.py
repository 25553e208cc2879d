"""Configurations and the toy base are found by name from any folder, and what lies there comes first."""

import pytest
import yaml

import train
from geometry.errors import InputError
from lightning_modules.networks.stable_diffusion.base_check import check_base
from lightning_modules.shipped import SHIPPED, config_names, find_config, find_folder
from tests.helpers.tiny import build_base

pytestmark = pytest.mark.filterwarnings("ignore")

TOY = "checkpoints/tiny-stable-diffusion"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["demo", "demo.yaml", "configs/demo.yaml"])
def test_a_shipped_configuration_is_found_from_any_folder(name, elsewhere):
    assert find_config(name) == str(SHIPPED / "configs/demo.yaml")


def test_every_shipped_configuration_has_a_name(elsewhere):
    files = sorted((SHIPPED / "configs").rglob("*.yaml"))
    assert sorted(find_config(name) for name in config_names()) == sorted(map(str, files))
    assert "hardware/24gb" in config_names() and len(files) > 15


@pytest.mark.parametrize("name", ["demo", "configs/demo.yaml", "hardware/24gb"])
def test_a_file_of_that_path_comes_before_the_shipped_configuration(name, elsewhere):
    file = elsewhere / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("name: mine")
    assert find_config(name) == name


@pytest.mark.parametrize("text", ["{name: demo}", "name: demo", "a\nb", "s3://bucket/demo.yaml", "-", ""])
def test_what_is_no_path_is_left_to_the_parser(text, elsewhere):
    assert find_config(text) == text


@pytest.mark.parametrize("name", ["demon", "hardware/nothing", "configs", "../configs/demo", "no/such/file.yaml"])
def test_a_name_that_is_unknown_is_answered_with_those_that_are_known(name, elsewhere):
    with pytest.raises(InputError, match=rf"no configuration {name}: .* demo, .*hardware/24gb") as error:
        find_config(name)
    assert "\n" not in str(error.value)


def test_the_command_takes_names_and_says_in_one_line_which_there_are(elsewhere, capsys):
    with pytest.raises(SystemExit) as leaving:
        train.main(["fit", "--config", "demo", "--config=hardware/cpu", "--print_config"])
    assert leaving.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    overlay = yaml.safe_load((SHIPPED / "configs/hardware/cpu.yaml").read_text())
    assert printed["name"] == "demo"
    assert printed["trainer"]["accumulate_grad_batches"] == overlay["trainer"]["accumulate_grad_batches"] != 1
    for words in (["fit", "-c", "demon"], ["export", "--ckpt_path=last", "--config=demon", "--output=x"]):
        with pytest.raises(SystemExit) as leaving:
            train.main(words)
        error = capsys.readouterr().err
        assert leaving.value.code == 2 and error.count("\n") == 1 and "hardware/24gb" in error


def test_the_toy_base_is_found_from_any_folder_unless_one_lies_there(elsewhere):
    base = check_base(TOY)
    assert base.folder == SHIPPED / TOY and str(base) == f"the base folder {TOY}"
    build_base(elsewhere / TOY, in_channels=8)
    assert check_base(TOY).folder.absolute() == elsewhere / TOY


@pytest.mark.parametrize("base", ["configs", "checkpoints/../configs", "tiny-stable-diffusion", "checkpoints/none"])
def test_no_other_folder_of_the_project_passes_for_a_base(base, elsewhere):
    assert find_folder(base) is None
