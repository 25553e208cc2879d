"""Writes what a denoiser is given for the empty prompt to a small file, so that training needs no text encoder."""

from pathlib import Path

from geometry.errors import InputError


def write(base: str, file: Path) -> None:
    """Write the conditioning of the empty prompt.

    Args:
        base: Folder in the diffusers layout, or hub id such as Qwen/Qwen-Image-Edit-2509, with its text encoders.
        file: Where to; conditioning.safetensors in the base's folder is found without being named.

    Raises:
        InputError: The base cannot be used, or the file cannot be written.
    """
    from lightning_modules.networks.conditioning import encode_empty_prompt, write_conditioning
    from lightning_modules.networks.pretrained_base import check_base

    found = check_base(base, use_stored=False)
    tensors = encode_empty_prompt(found.files, found.family, found.configs[found.family.denoiser_part])
    write_conditioning(tensors, found.family, base, file)
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    print(f"{file}: {shapes}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: of the command line; None is the process's own.
    """
    from jsonargparse import auto_cli

    from lightning_modules.command_line.console import leave

    try:
        auto_cli(write, args=arguments)
    except InputError as error:
        leave(str(error))


if __name__ == "__main__":
    main()
