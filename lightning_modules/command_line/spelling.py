"""Spellings of options that the commands with a trainer take besides the parser's own."""

from collections.abc import Sequence

from geometry.command_line.words import with_underscores
from lightning_modules.shipped import find_config

# What the other commands call the arithmetic of the network, and what a trainer does for it.
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


def spelled(words: Sequence[str]) -> list[str]:
    """Return a command line as the parser takes it: underscores in names, ``--precision`` as the trainer has it.

    Names of shipped configurations become paths.

    Args:
        words: the command and its options.
    """
    spelt: list[str] = []
    for word in map(with_underscores, map(str, words)):
        name, joined, value = word.partition("=")
        if spelt[-1:] == ["--trainer.precision"]:
            word = PRECISIONS.get(word, word)
        elif spelt[-1:] in (["--config"], ["-c"]):
            word = find_config(word)
        elif name in ("--config", "-c") and joined:
            word = name + joined + find_config(value)
        elif name == "--precision":
            word = "--trainer.precision" + joined + PRECISIONS.get(value, value)
        spelt.append(word)
    return spelt
