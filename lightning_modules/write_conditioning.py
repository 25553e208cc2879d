"""The command ``onestep conditioning``: what a denoiser is given for the empty prompt, as a file."""

import sys
from pathlib import Path
from typing import Annotated

from geometry.command_line import Command, Option, say_new_spelling
from lightning_modules.command_line.console import quieten


def write(base: str, output: Annotated[Path, Option(also=("file",))]) -> None:
    """Write what a denoiser is given for the empty prompt to a small file, so that training needs no text encoder.

    Args:
        base: Folder in the diffusers layout, or hub id such as Qwen/Qwen-Image-Edit-2509, with its text encoders.
        output: Where to; conditioning.safetensors in the base's folder is found without being named.

    Raises:
        InputError: The base cannot be used, or the file cannot be written.
    """
    from lightning_modules.networks.conditioning import encode_empty_prompt, write_conditioning
    from lightning_modules.networks.pretrained_base import check_base

    found = check_base(base, use_stored=False)
    tensors = encode_empty_prompt(found.files, found.family, found.configs[found.family.denoiser_part])
    write_conditioning(tensors, found.family, base, output)
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    print(f"{output}: {shapes}")


COMMAND = Command(write, before=quieten)


def main(arguments: list[str] | None = None) -> int:
    """Run the command, as version 0.1 called it: with the base and the file, or their names before them.

    Args:
        arguments: of the command line; None is the process's own.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) == 2 and not any(word.startswith("--") for word in words):
        words = ["--base", words[0], "--output", words[1]]
    return COMMAND.main(words, "onestep conditioning")


if __name__ == "__main__":
    say_new_spelling("python -m lightning_modules.write_conditioning", "onestep conditioning")
    sys.exit(main())
