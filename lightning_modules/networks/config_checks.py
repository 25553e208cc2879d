"""Checks of a base's configs that hold for every family."""

import math
from typing import Any

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
    is_list = isinstance(values, list) and len(values) == channels and all(map(is_finite, values))
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


def check_sizes(base: Base, file: str, config: dict[str, Any]) -> None:
    """Check that a network can be built in bounded time and memory, before anybody tries.

    Args:
        base: the base.
        file: path of the config within it.
        config: its content.

    Raises:
        InputError: a number is beyond those of any network of today.
    """
    for name, value in config.items():
        largest = _MOST_LAYERS if "layers" in name else _LARGEST_SIZE
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and abs(number) > largest:
                raise base.refusal(file, f"has {name}: {str(number)[:40]}. Needed: at most {largest}.")
            if isinstance(number, dict):
                check_sizes(base, file, number)


def is_finite(value: Any) -> bool:  # noqa: ANN401
    """Say whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
