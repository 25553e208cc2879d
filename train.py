"""OneStep: fine-tune an image diffusion model to predict depth or surface normals in a single step, and use it."""

import os
import select
import signal
import sys
from importlib import import_module
from typing import Any, NoReturn

# Every command: where it is, and one line on it. Those with a trainer share a parser; any other is a
# geometry.command_line.Command (or a Group of such) named COMMAND (or GROUP). A new one is a line here.
TRAINER = "lightning_modules.command_line.trainer_commands"
COMMANDS = {
    "fit": (TRAINER, "Train a model; validate it while it trains, and at the end."),
    "validate": (TRAINER, "Score a trained model on its validation data."),
    "test": (TRAINER, "Score a trained model on benchmarks."),
    "predict": ("lightning_modules.inference.command:COMMAND", "Predict depth or normals of images."),
    "export": ("lightning_modules.export.command:COMMAND", "Hand a model over: diffusers, torch.export or ONNX."),
    "serve": ("lightning_modules.app.__main__:COMMAND", "Show a web page for a trained model."),
    "compare": ("lightning_modules.comparison.command:COMMAND", "Compare tested runs, image by image."),
    "prepare": ("datamodules.prepare:GROUP", "Prepare a data set for training, check it, look at it."),
    "synthesize": ("synthetic_scenes.command:GROUP", "Render scenes in the raw layout of a data set."),
    "plan": ("lightning_modules.planning.command:COMMAND", "Say what a configuration needs of a GPU before it runs."),
    "conditioning": ("lightning_modules.write_conditioning:COMMAND", "Store the empty prompt's encoding of a base."),
}


def main(args: list[str] | None = None) -> None:
    """Run a command; mistakes that a user can mend end with ``error: ...`` and status 2, Ctrl-C with status 130.

    Who reads the output may leave before its end, as ``head`` does: status 141, as of other programs.

    Args:
        args: the command line; None is that of the process.
    """
    try:
        try:
            _run(args)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if _is_read():
            raise  # it is another pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed when Python ends
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:  # while libraries are imported; from then on commands say what they keep
        print("Stopped. Nothing was begun.", file=sys.stderr)
        sys.exit(130)


def _is_read() -> bool:
    """Say whether somebody reads the output, where it is a pipe."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return not poll.poll(0)


def _run(args: list[str] | None) -> None:
    words = sys.argv[1:] if args is None else [str(word) for word in args]
    first = words[0].replace("-", "_") if words else ""
    if first in ("_h", "__help", "__help_all") or not words:
        print(_help())
        if not words:
            _leave("a command is needed, for instance fit.")
        sys.exit(0)
    _require_working_folder()
    if first.partition("=")[0] == "__print_completion":
        kind = first.partition("=")[2] or (words[1] if len(words) > 1 else "")
        others = {name: find_command(place) for name, (place, _) in COMMANDS.items() if place != TRAINER}
        return import_module("lightning_modules.command_line.completion").print_completion(kind, others)
    place = COMMANDS.get(words[0], (TRAINER, ""))[0]
    if words[0] not in COMMANDS and not words[0].startswith("-"):
        _leave(f"there is no command {words[0]!r}; one of {', '.join(COMMANDS)}.")
    if place == TRAINER:
        return import_module(TRAINER).main(args)
    if status := find_command(place).main(words[1:], f"onestep {words[0]}"):
        sys.exit(status)


def _require_working_folder() -> None:
    """Leave if the working folder was removed: most libraries fail without one, and do not say why."""
    try:
        os.getcwd()
    except OSError as error:
        _leave(f"the working folder is gone, or cannot be read ({error.strerror}). Change to another one first.")


def _leave(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def find_command(place: str) -> Any:  # noqa: ANN401 - a Command or a Group, which are slow to import
    """Return the command that stands at a place.

    Args:
        place: module and name, as in ``COMMANDS``.
    """
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _help() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: onestep COMMAND [options]        (python train.py is the same program)",
            "",
            __doc__ or "",
            "",
            *(f"  {name.ljust(width)}  {text}" for name, (_, text) in COMMANDS.items()),
            "",
            "onestep COMMAND --help lists the options of a command. Every command takes --config FILE and",
            "--print_config. onestep --print_completion shtab-bash prints a script that completes commands in bash.",
        ]
    )


if __name__ == "__main__":
    main()
