"""Every command of README, documentation and configurations' headers is taken by the parser of today."""

import re
import shlex
from pathlib import Path
from string import Template

import pytest

import train
from geometry.command_line import Group
from lightning_modules.command_line.trainer_commands import OneStepCLI

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HEADERS = sorted((ROOT / "configs").rglob("*.yaml"))
# Where a page names a kind of thing in place of a thing.
PLACEHOLDER = re.compile(r"(?:^| )\.\.\.(?: |$)|\||CLASS|COMMAND|\.\.\. ")


# What variables of loops in the shell stand for.
VARIABLES = {"spacing": "trailing", "steps": "4", "size": "10"}


def command_lines(text):
    """Command lines of our program in code blocks, comments and variables of the shell left out."""
    blocks = re.findall(r"^ *```(?:bash|console)\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines = [Template(line).safe_substitute(VARIABLES) for line in lines]
    for line in [*lines, *re.findall(r"^# ((?:\w+=\S+ )?onestep .*)", text, flags=re.MULTILINE)]:
        for part in line.removeprefix("$ ").split("&&"):
            found = re.fullmatch(r"\s*(?:[A-Z_]+=\S+ +)*(?:onestep|python train\.py) (.*)", part)
            if found and not PLACEHOLDER.search(found[1]):
                yield shlex.split(found[1], comments=True)


COMMANDS = [
    (f"{page.relative_to(ROOT)}: {' '.join(words)}", words)
    for page in PAGES + HEADERS
    for words in command_lines(page.read_text(encoding="utf-8"))
]


class Parsed(BaseException):
    """The command line was taken."""


def test_there_are_commands_to_read():
    names = {words[0] for _, words in COMMANDS}
    assert len(COMMANDS) > 60 and names >= {
        "fit",
        "validate",
        "test",
        "predict",
        "export",
        "serve",
        "compare",
        "prepare",
    }


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=[name for name, _ in COMMANDS])
def test_the_parser_takes_it(words, monkeypatch, capsys):
    monkeypatch.setenv("DATA_ROOT", "/data/shards")
    if words[0].startswith("--") or "--help" in words:
        if not words[0].startswith("--print_completion"):
            with pytest.raises(SystemExit) as ended:
                train.main(words)
            assert not ended.value.code
        return
    place, _ = train.COMMANDS[words[0]]
    if place != train.TRAINER:
        command, rest = train.find_command(place), words[1:]
        if isinstance(command, Group):
            command, rest = command.commands()[rest[0]], rest[1:]
        command.parse(rest)
        return
    if "--run" in words:  # the run is not there; what is laid over it is read with a configuration of ours
        where = words.index("--run")
        words = [words[0], "--config", "demo", *words[1:where], *words[where + 2 :]]

    def stop(cli):
        raise Parsed

    monkeypatch.setattr(OneStepCLI, "before_instantiate_classes", stop)
    with pytest.raises(Parsed):
        train.main(words)


def measurements(text):
    """Modules of benchmarks and research that a page runs, each with the options it gives them."""
    for module, rest in re.findall(r"python -m ((?:benchmarks|research)\.\w+)([^`\n#|&;]*)", text.replace("\\\n", " ")):
        yield module, re.findall(r"--(?:no-)?(\w[\w-]*)", rest)


def test_the_options_of_documented_measurements_are_those_of_their_programs():
    found = [each for page in [*PAGES, ROOT / "benchmarks/RESULTS.md"] for each in measurements(page.read_text())]
    assert len(found) > 30 and any(options for _, options in found)
    for module, options in found:
        place = ROOT / module.replace(".", "/")
        files = sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        files.append(ROOT / "benchmarks/network_parser.py")
        code = "".join(file.read_text() for file in files)
        for option in options:
            # An option of argparse, or a parameter of a typed function.
            assert f'"--{option}"' in code or re.search(rf"\b{option}: \w", code), (module, option)
