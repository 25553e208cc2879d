"""Whether stored weights fit a network."""

from collections.abc import Collection, Mapping

from torch import Tensor


def describe_mismatch(stored: Mapping[str, Tensor], own: Mapping[str, Tensor], needed: Collection[str]) -> str:
    """Say in what stored weights differ from those of a network, or return nothing if they fit.

    Args:
        stored: weights of a checkpoint by name.
        own: all weights of the network by name.
        needed: names that the checkpoint must hold.
    """
    wrong = {
        "lacks": sorted(set(needed) - stored.keys()),
        "has no place for": sorted(stored.keys() - own.keys()),
        "has in another shape": sorted(n for n in stored.keys() & own.keys() if stored[n].shape != own[n].shape),
    }
    return ", ".join(f"{verb} {len(names)} weights ({names[0]} ...)" for verb, names in wrong.items() if names)
