"""What a file or a folder is that was given in place of a run, and where it belongs."""

import json
from contextlib import suppress
from pathlib import Path

from geometry.errors import InputError
from geometry.files.reading import read_text_file
from lightning_modules.networks.base_files import INDEX
from lightning_modules.networks.pipeline_folder import EXPORT_RECORD

_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors")
_BASE = "--model.init_args.network.init_args.base"


def describe_mistake(path: Path) -> str | None:
    """Return a sentence on what a path is, and where it belongs; None of one that may be a checkpoint or a run.

    Args:
        path: a file or a folder.
    """
    return _folder(path) if path.is_dir() else _file(path) if path.is_file() else None


def _folder(path: Path) -> str | None:
    names = {name for name in (EXPORT_RECORD, INDEX, "dataset.json", *_ADAPTERS) if (path / name).is_file()}
    if EXPORT_RECORD in names and INDEX not in names:
        return (
            f"{path} is an export of the format {_entry(path / EXPORT_RECORD, 'format')}, which other programs run; "
            "its README.md says how. Give the run that it was made from, or an export of the format diffusers."
        )
    if INDEX in names:
        return (
            f"{path} is a folder of diffusers and no run: predict, export and serve take it as --pretrained, if it "
            f"predicts; fit, validate and test take it as {_BASE}."
        )
    if names & set(_ADAPTERS):
        return (
            f"{path} holds low-rank adapters alone. Give the run that trained them; merge those of another program "
            f"into a folder of diffusers first, and give it as {_BASE}."
        )
    if "dataset.json" in names:
        return f"{path} is a data set and no model; give it as --data.init_args.datasets."
    if _entry(path / "config.json", "_class_name"):
        return f"{path} is one part of a folder of diffusers; give the folder around it as --pretrained, or as {_BASE}."
    if (path / "config.yaml").is_file():
        return f"{path} is a run that has saved no checkpoint yet."
    return None


def _file(path: Path) -> str | None:
    kinds = {
        (".onnx", ".pt2"): "is a program, which other programs run; the README.md beside it says how",
        (".safetensors", ".gguf"): "holds weights alone, and nothing says of which network",
        (".yaml", ".yml"): "is a configuration; it is given as --config, beside the run",
    }
    for suffixes, kind in kinds.items():
        if path.suffix.lower() in suffixes:
            return f"{path} {kind}. Give runs/NAME, runs/NAME/version_N or a .ckpt file."
    return None


def _entry(file: Path, key: str) -> object:
    """Return an entry of a JSON file; None where there is no such file or entry."""
    with suppress(InputError, OSError, ValueError, RecursionError):
        content = json.loads(read_text_file(file))
        return content.get(key) if isinstance(content, dict) else None
    return None
