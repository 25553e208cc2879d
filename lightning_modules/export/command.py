"""The command ``python train.py export``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from geometry.errors import InputError, one_line
from geometry.files.paths import path_argument
from lightning_modules.inference.arguments import add_model_arguments, load_from_arguments, parse


def main(arguments: Sequence[str]) -> int:
    """Export a model, and say how far the export is from it.

    Args:
        arguments: words after the command's name.

    Returns:
        Exit status 0.

    Raises:
        InputError: the model cannot be found, loaded or exported.
    """
    options = parse(_parser(), arguments)
    from lightning_modules.export.writing import ExportOptions, check_output, export_model

    if options.private and options.push_to_hub is None:
        raise InputError("--private concerns a repository on the hub: give --push-to-hub OWNER/NAME, or leave it out.")
    if options.push_to_hub is not None:
        check_repository(options.push_to_hub)
    check_output(options.output, options.overwrite)
    model = load_from_arguments(options)
    record = export_model(model, ExportOptions(options.output, options.format, options.dtype, options.overwrite))
    found = record.agreement
    print(
        f"{options.output}: {record.predicts}, {record.format}, {record.dtype}"
        f"{', moving average' if record.moving_average else ''}. Largest difference from the checkpoint over "
        f"{found.num_comparisons} predictions: {found.maximum:.2g}, mean {found.mean:.2g}."
    )
    if options.push_to_hub:
        print(f"uploaded to {push(options.output, options.push_to_hub, options.private)}")
    return 0


def check_repository(name: str) -> None:
    """Check that a repository of the hub can have a name.

    Raises:
        InputError: it cannot.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"--push-to-hub {name}: {str(error).rstrip('.')}.") from error


def push(folder: Path, repository: str, is_private: bool) -> str:
    """Upload a folder to the Hugging Face hub and return its address.

    Args:
        folder: a finished export.
        repository: owner/name; made if it does not exist.
        is_private: whether a new repository is private.

    Raises:
        InputError: the hub refuses or is out of reach; the folder stays as it is.
    """
    import huggingface_hub

    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(repository, private=is_private, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of OneStep")
    except Exception as error:  # whatever the hub's client raises
        reason = one_line(error, 240)
        raise InputError(
            f"{folder} is complete, but cannot be uploaded to {repository}: {reason}. Log in with `hf auth login` and "
            f"run `hf upload {repository} {folder}`."
        ) from error
    return f"https://huggingface.co/{repository}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python train.py export",
        description="Hand a trained model over. The export is compared with the checkpoint before it is declared done.",
        allow_abbrev=False,
    )
    add_model_arguments(parser)
    parser.add_argument("--output", type=path_argument, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--format",
        choices=("diffusers", "torch", "onnx"),
        default="diffusers",
        help="diffusers: a folder for a stock pipeline; torch: a torch.export program; onnx: an ONNX graph "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="arithmetic of the program; for diffusers, a smaller type is added beside float32 (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")
    parser.add_argument(
        "--push-to-hub", metavar="OWNER/NAME", help="upload the finished folder to the Hugging Face hub"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository on the hub private")
    return parser
