"""Every command is read alike: help, configurations, one spelling, the names of version 0.1."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import yaml

import train
from geometry.command_line import Command, Group, Option
from geometry.command_line.words import arrange
from lightning_modules.command_line.spelling import spelled
from lightning_modules.inference.arguments import find_run_configs

ROOT = Path(__file__).parents[1]


def test_ctrl_c_while_libraries_are_imported_is_one_line(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "import_module", interrupted)
    for command in ("fit", "predict"):
        with pytest.raises(SystemExit) as end:
            train.main([command])
        assert end.value.code == 130
        assert capsys.readouterr().err == "Stopped. Nothing was begun.\n"


def commands():
    """Commands without a trainer, by what calls them."""
    for name, (place, _) in train.COMMANDS.items():
        if place != train.TRAINER:
            found = train.find_command(place)
            below = (
                {f"{name} {word}": one for word, one in found.commands().items()} if isinstance(found, Group) else {}
            )
            yield from (below or {name: found}).items()


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_explained(name, capsys):
    command = COMMANDS[name]
    assert command.summary.endswith(".")
    for option in command.part.options:
        assert len(option.help.split()) >= 1 and option.help[-1] in ".)", (name, option.name, option.help)
    with pytest.raises(SystemExit) as ended:
        train.main([*name.split(), "--help"])
    assert not ended.value.code
    text = capsys.readouterr().out
    assert all(f"--{option.name}" in text for option in command.part.options)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_printed_config_of_every_command_is_taken_by_it(name, capsys, tmp_path):
    words = ["--print_config"]
    for option in COMMANDS[name].part.options:
        if option.is_required:
            words += [f"--{option.name}", *["1"] * (option.num_words if isinstance(option.num_words, int) else 1)]
    printed = []
    for given in (words, ["--config", str(tmp_path / "options.yaml"), "--print_config"]):
        with pytest.raises(SystemExit):
            train.main([*name.split(), *given])
        printed.append(capsys.readouterr().out)
        (tmp_path / "options.yaml").write_text(printed[0])
    assert printed[0] == printed[1] and set(yaml.safe_load(printed[0])) == {o.name for o in COMMANDS[name].part.options}


def test_the_help_of_all_lists_every_command_and_imports_nothing_slow():
    code = "import sys, train\ntry: train.main(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("False\n")
    assert all(f"  {name} " in done.stdout for name in train.COMMANDS)


def test_a_command_whose_output_nobody_reads_ends_without_a_word():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_pipe_that_breaks_elsewhere_is_no_reader_that_left(monkeypatch):
    def broken(place):
        raise BrokenPipeError

    monkeypatch.setattr(train, "find_command", broken)
    with pytest.raises(BrokenPipeError):
        train.main(["plan"])


def test_a_command_of_the_trainer_and_its_help_say_the_same():
    from lightning_modules.command_line.trainer_commands import DESCRIPTIONS

    assert {name for name, (place, _) in train.COMMANDS.items() if place == train.TRAINER} == set(DESCRIPTIONS)


def test_prepare_of_version_0_1_works_and_says_its_new_name():
    done = subprocess.run(
        [sys.executable, "-m", "datamodules.prepare", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "hypersim" in done.stdout
    assert done.stderr == "python -m datamodules.prepare is onestep prepare now; the old name still works.\n"


def test_names_of_version_0_1_mean_the_same_options():
    old = "a.png --model x --out o --processing-res 64 --fov-deg=60 --point-cloud".replace("--out ", "--output ")
    new = "--images a.png --pretrained x --output o --processing_res 64 --fov_deg 60 --point_cloud"
    predict = COMMANDS["predict"]
    assert predict.parse(old.split()) == predict.parse(new.split())
    export = COMMANDS["export"]
    assert export.parse("--output o --run r --dtype bfloat16".split()).precision == "bfloat16"
    assert COMMANDS["prepare preview"].parse(["s", "--out", "p.png"]).output == "p.png"


@pytest.mark.parametrize(
    ("words", "arranged"),
    [
        ("a b --x 1 c", "--all a b c --x=1"),
        ("--list 1 2 --x 3 --list 4", "--list 1 2 4 --x=3"),
        ("--flag a --flag=false", "--all=a --flag --no_flag"),
        ("--pair -1 2 b", "--all=b --pair -1 2"),
        ("--old-name=-1", "--x=-1"),
        ("--nonsense", "--nonsense"),
    ],
)
def test_words_are_arranged(words, arranged):
    num_words = {"--all": "+", "--x": 1, "--list": "*", "--flag": 0, "--no_flag": 0, "--pair": 2}
    assert " ".join(arrange(words.split(), num_words, {"--old_name": "--x"}, "all")) == arranged


def test_precision_has_one_name_in_every_command():
    assert spelled(["fit", "--precision", "bfloat16"]) == ["fit", "--trainer.precision", "bf16-mixed"]
    assert spelled(["fit", "--precision=16-mixed"]) == ["fit", "--trainer.precision=16-mixed"]
    assert spelled(["fit", "--ckpt-path=a-b", "--data.x.a-b", "1"]) == ["fit", "--ckpt_path=a-b", "--data.x.a-b", "1"]
    for name in ("predict", "export"):
        assert "precision" in [option.name for option in COMMANDS[name].part.options]


def test_config_of_a_command_with_a_model_holds_its_options_or_is_a_runs(tmp_path):
    (tmp_path / "own.yaml").write_text("output: here\nprocessing_res: 64\n")
    (tmp_path / "run.yaml").write_text("model: {class_path: x}\n")
    parse = COMMANDS["predict"].parse
    own = parse(["a.png", "--run", "r", "--config", f"{tmp_path}/own.yaml"])
    assert (own.output, own.processing_res, own.run_config) == ("here", 64, [])
    run = parse(["a.png", "--output", "o", "--ckpt_path", "last", "-c", f"{tmp_path}/run.yaml"])
    assert run.run_config == [f"{tmp_path}/run.yaml"]
    assert parse(["a.png", "--output", "o", "--ckpt_path", "last", "--config", "demo"]).run_config == ["demo"]
    assert find_run_configs(["--x=1"], []) == ["--x=1"]


def add(first: int, /, further: Annotated[tuple[int, ...], Option(also=("more",))] = ()) -> int:
    """Add numbers.

    Args:
        first: One.
        further: Others.
    """
    return first + sum(further)


def test_a_function_becomes_a_command(capsys):
    assert Command(add).main("1 --more 2 3".split(), "add") == 6
    with pytest.raises(SystemExit) as ended:
        Command(add).main(["x"], "add")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: first: expected int, got x. (Options: add --help)\n"


@pytest.mark.slow
def test_bash_completes_commands_and_options(tmp_path):
    script = subprocess.run(
        [sys.executable, "train.py", "--print_completion", "shtab-bash"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "onestep").write_text(script.stdout)
    for words, expected in (("onestep pre", "prepare"), ("onestep prepare hypersim --si", "--size")):
        *_, before, last = words.split()
        ask = f"source {tmp_path}/onestep; COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; COMP_TYPE=9; "
        ask += f'_shtab_onestep onestep {last} {before}; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True)
        assert expected in done.stdout.split()
