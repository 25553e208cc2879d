"""The command ``onestep export``."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from geometry.command_line import Command, Option
from geometry.errors import InputError, one_line
from lightning_modules.command_line.console import quieten
from lightning_modules.inference.arguments import ModelChoice, find_run_configs
from lightning_modules.inference.predictor import Precision


@dataclass(frozen=True)
class Upload:
    """Upload.

    Attributes:
        push_to_hub: Upload the finished folder to this repository on the Hugging Face hub.
        private: Make a new repository on the hub private.
    """

    push_to_hub: Annotated[str | None, Option(metavar="OWNER/NAME")] = None
    private: bool = False


def export(
    output: Path,
    model: ModelChoice,
    upload: Upload,
    format: Literal["diffusers", "torch", "onnx"] = "diffusers",
    precision: Annotated[Precision, Option(also=("dtype",))] = "float32",
    overwrite: bool = False,
) -> int:
    """Hand a trained model over. The export is compared with the checkpoint before it is declared done.

    Args:
        output: Folder to write; of a model of several modalities, one with an export of each.
        model: Model.
        upload: Upload.
        format: diffusers: a folder for a stock pipeline, or with one of its own; torch: a torch.export program; onnx:
            an ONNX graph.
        precision: Arithmetic of the program; for diffusers, a smaller type is added beside float32.
        overwrite: Replace the folder if it exists.

    Raises:
        InputError: the model cannot be found, loaded or exported.
    """
    from lightning_modules.export.writing import ExportOptions, check_output, export_model
    from lightning_modules.networks.pipeline_folder import EXPORT_RECORD
    from lightning_modules.single_task import choose

    if upload.private and upload.push_to_hub is None:
        raise InputError("--private concerns a repository on the hub: give --push_to_hub OWNER/NAME, or leave it out.")
    if upload.push_to_hub is not None:
        check_repository(upload.push_to_hub)
    if not overwrite or (output / EXPORT_RECORD).is_file():
        check_output(output, overwrite)  # before the model is loaded
    loaded = model.load()
    singles = choose(loaded.estimator, model.modality)
    if len(singles) > 1 and upload.push_to_hub:
        names = ", ".join(single.task.modality.name for single in singles)
        raise InputError(f"--push_to_hub takes one export, but the model predicts {names}: give --modality.")
    for single in singles:
        folder = output if len(singles) == 1 else output / single.task.modality.name
        record = export_model(replace(loaded, estimator=single), ExportOptions(folder, format, precision, overwrite))
        found = record.agreement
        print(
            f"{folder}: {record.predicts}, {record.format}, {record.dtype}"
            f"{', moving average' if record.moving_average else ''}. Largest difference from the checkpoint over "
            f"{found.num_comparisons} predictions: {found.maximum:.2g}, mean {found.mean:.2g}."
        )
        if record.merged is not None:
            print(f"{folder}: merged from 4 bits and adapters; difference of the clean latents: {record.merged}.")
    if upload.push_to_hub:
        print(f"uploaded to {push(output, upload.push_to_hub, upload.private)}")
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
        raise InputError(f"--push_to_hub {name}: {str(error).rstrip('.')}.") from error


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


COMMAND = Command(export, kept="Nothing was written.", prepare_words=find_run_configs, before=quieten)
