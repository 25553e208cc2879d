"""Checks of a base's configs that hold for every family."""

from collections.abc import Mapping
from typing import Any

from geometry.files.json_text import is_finite_number
from lightning_modules.networks.base_files import Base

# The largest networks of today have a tenth of these.
_MOST_LAYERS = 1000
_LARGEST_SIZE = 1 << 24


def check_class(base: Base, file: str, where: str, name: Any, allowed: tuple[str, ...] | None) -> None:  # noqa: ANN401
    """Check the class that a file names.

    Args:
        base: the base.
        file: path within it.
        where: what comes before the name in the message.
        name: the class's name, or None where the file names none.
        allowed: names that are fine; None is any.

    Raises:
        InputError: it is another class.
    """
    if name is not None and allowed is not None and name not in allowed:
        raise base.refusal(file, f"names the class {where}{name!r}. Needed: {' or '.join(allowed[:2])}.")


def check_per_channel(base: Base, file: str, name: str, config: dict[str, Any]) -> None:
    """Check the means or deviations that latents are normalised with: one per channel, and both or neither.

    Args:
        base: the base.
        file: path of the VAE's config within it.
        name: latents_mean or latents_std.
        config: the VAE's config, with its latent_channels.

    Raises:
        InputError: there are others.
    """
    values: Any
    values, channels = config.get(name), config["latent_channels"]
    if values is None and config.get("latents_mean") is None and config.get("latents_std") is None:
        return
    is_list = isinstance(values, list) and len(values) == channels and all(map(is_finite_number, values))
    if not is_list or (name == "latents_std" and min(values) <= 0):
        raise base.refusal(
            file,
            f"has {name}: {values!r}. Needed: latents_mean and latents_std with {channels} numbers each, one per "
            "channel, the deviations above 0; or neither.",
        )


def check_counts(base: Base, file: str, config: dict[str, Any], *names: str) -> None:
    """Check that settings are whole numbers above 0.

    Args:
        base: the base.
        file: path of the config within it.
        config: its content.
        *names: the settings.

    Raises:
        InputError: one is not.
    """
    for name in names:
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise base.refusal(file, f"has {name}: {value!r}. Needed: a whole number above 0.")


def named_class(index: Mapping[str, Any], part: str) -> Any:  # noqa: ANN401 - any JSON
    """Return the class that a ``model_index.json`` names for a part as [library, class]; None where it names none.

    Args:
        index: its content.
        part: name of the part.
    """
    entry = index.get(part)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def read_configs(base: Base) -> dict[str, dict[str, Any]]:
    """Return the configs of a base's parts: of plain weights, and of networks that can be built in bounded time.

    Args:
        base: the base, with all of its configs.

    Raises:
        InputError: one cannot be read, or asks for something else.
    """
    found = {}
    for name, part in base.parts.items():
        file = f"{name}/{part.config}"
        config = found[name] = base.read_json(file)
        if config.get("quantization_config") is not None:
            raise base.refusal(file, "says that the weights are quantised. Needed: plain weights.")
        if part.stem:
            _check_sizes(base, file, config)
    return found


def _check_sizes(base: Base, file: str, config: dict[str, Any]) -> None:
    """Check that no number is beyond those of any network of today, before anybody builds one."""
    for name, value in config.items():
        largest = _MOST_LAYERS if "layers" in name else _LARGEST_SIZE
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and abs(number) > largest:
                raise base.refusal(file, f"has {name}: {str(number)[:40]}. Needed: at most {largest}.")
            if isinstance(number, dict):
                _check_sizes(base, file, number)
