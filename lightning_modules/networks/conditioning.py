"""What a denoiser is given for the empty prompt: computed once by the base's own encoders, or read from a small file.

``onestep conditioning`` writes such a file on a machine that has the encoders;
training then needs neither them nor their memory.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geometry.errors import InputError, one_line
from geometry.files.reading import open_regular_file
from geometry.files.writing import write_whole
from lightning_modules.networks.base_files import TEXT_ENCODER, TOKENIZER, Base
from lightning_modules.networks.family import Family, skeleton
from lightning_modules.networks.pretrained import load_encoder, load_part, quiet_transformers
from lightning_modules.networks.weightless import is_weightless

# Beside the base's model_index.json; read in place of the encoders where it is.
FILE_NAME = "conditioning.safetensors"
_PIPELINE = "pipeline"
_LARGEST_BYTES = 1 << 28
# Encoders of more than this are computed in bfloat16: their weights would fill a machine's memory otherwise.
_MOST_FLOAT32_BYTES = 4 << 30


def read_conditioning(file: Path, family: Family, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the conditioning that ``write_conditioning`` stored.

    Args:
        file: a safetensors file.
        family: the family of the base that it is for.
        config: the denoiser's.

    Returns:
        Tensors (1,...), float32.

    Raises:
        InputError: it cannot be read, or is another family's, or of another size.
    """
    from safetensors import SafetensorError, safe_open

    try:
        open_regular_file(file, _LARGEST_BYTES).close()
        with safe_open(file, "pt") as content:
            pipeline = (content.metadata() or {}).get(_PIPELINE)
            found = {name: content.get_tensor(name).float() for name in content.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"the conditioning {file} cannot be read ({one_line(error)}). Write it anew.") from error
    if pipeline != family.pipeline:
        raise InputError(
            f"the conditioning {file} was written for a {pipeline}, but the base is a {family.pipeline}. Write one for "
            "this base: onestep conditioning."
        )
    _check(found, family, config, f"the conditioning {file}")
    return found


def write_conditioning(tensors: Mapping[str, Tensor], family: Family, base: str, file: Path) -> None:
    """Store a conditioning as a safetensors file.

    Args:
        tensors: what ``encode_empty_prompt`` returned.
        family: the base's family.
        base: the base's name, which is noted down.
        file: where to.

    Raises:
        InputError: it cannot be written.
    """
    from safetensors.torch import save

    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, save(contiguous, {_PIPELINE: family.pipeline, "base": base, "prompt": ""}))
    except OSError as error:
        raise InputError(f"the conditioning {file} cannot be written: {error.strerror or error}.") from error


def encode_empty_prompt(base: Base, family: Family, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what the denoiser is given for the empty prompt; the encoders are dropped afterwards.

    Args:
        base: the base, checked, with its text parts.
        family: its family.
        config: the denoiser's.

    Returns:
        Tensors (1,...), float32.

    Raises:
        InputError: a part cannot be read, or they do not fit together.
    """
    if is_weightless():
        tokens = family.prompt_tokens  # what is pooled has none
        return {
            name: torch.zeros((1, width) if "pooled" in name else (1, tokens, width))
            for name, width in family.conditioning_widths(config).items()
        }
    import diffusers

    classes = base.read_json("model_index.json")
    parts: dict[str, Any] = {}
    for name in (*family.classes, *family.optional, *family.idle):
        parts[name] = _load_text_part(base, name, classes[name][1]) if name in base.parts else None
    kind = getattr(diffusers, family.classes[family.denoiser_part][0])
    parts[family.denoiser_part] = skeleton(kind, base, family.denoiser_part, config)
    parts["vae"] = parts["scheduler"] = None
    try:
        with torch.no_grad(), quiet_transformers():
            pipeline: Any = getattr(diffusers, family.pipeline)
            options = inspect.signature(pipeline).parameters.values()
            needed = [option.name for option in options if option.default is option.empty]
            found = family.encode_empty_prompt(pipeline(**{name: parts.get(name) for name in needed}))
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise base.refusal("its text parts", f"do not encode the empty prompt ({reason}).") from error
    tensors = {name: tensor.detach().float().clone() for name, tensor in found.items()}
    _check(tensors, family, config, str(base))
    return tensors


def _load_text_part(base: Base, name: str, class_name: str) -> Any:  # noqa: ANN401
    import transformers

    part = base.parts[name]
    if part == TEXT_ENCODER:
        size = sum((base.folder / file).stat().st_size for file in base.weights(name).files)
        dtype = torch.float32 if size < _MOST_FLOAT32_BYTES else torch.bfloat16
        return load_encoder(getattr(transformers, class_name), base, name, dtype).eval()
    if part == TOKENIZER or name == "processor":
        return load_part(getattr(transformers, class_name).from_pretrained, base, name)
    return None


def _check(tensors: Mapping[str, Tensor], family: Family, config: Mapping[str, Any], what: str) -> None:
    """Check names, widths and values of a conditioning."""
    widths = family.conditioning_widths(config)
    if tensors.keys() != widths.keys():
        raise InputError(f"{what} gives {', '.join(tensors) or 'nothing'}. Needed: {', '.join(widths)}.")
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or len(tensor) != 1 or tensor.shape[-1] != widths[name] or not tensor.numel():
            raise InputError(
                f"{what} gives {name} as {tuple(tensor.shape)}, but the denoiser needs a last axis of {widths[name]}."
            )
        if not tensor.isfinite().all():
            raise InputError(f"{what} gives {name} with values that are not finite.")
