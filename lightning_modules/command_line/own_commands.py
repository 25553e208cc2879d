"""The commands that use trained models or their results: no trainer, no data module, options of their own."""

from importlib import import_module

from lightning_modules.command_line.console import input_error_behind, leave

COMMANDS = {
    "predict": ("lightning_modules.inference.command", "Predictions for images, as arrays and images."),
    "compare": ("lightning_modules.comparison.command", "Tested runs against each other, image by image."),
    "export": ("lightning_modules.export.command", "A trained model for diffusers, torch.export or ONNX."),
}


def run_command(words: list[str]) -> int:
    """Run a command and return its exit status; a user's mistake ends with ``error: ...`` and status 2.

    Args:
        words: the command's name and what follows it.
    """
    try:
        return import_module(COMMANDS[words[0]][0]).main(words[1:])
    except Exception as error:
        mistake = input_error_behind(error)
        if mistake is None:
            raise
        leave(mistake)
