"""Whether stored weights fit a network."""

from collections.abc import Mapping, Set

from torch import Tensor


def describe_mismatch(stored: Mapping[str, Tensor], own: Mapping[str, Tensor], needed: Set[str]) -> str:
    """Say in what stored weights differ from those of a network, or return nothing if they fit.

    Args:
        stored: weights of a checkpoint by name.
        own: all weights of the network by name.
        needed: names of the weights that train, which the checkpoint must hold; of the others, it must hold none, for
            checkpoints made from here on would lose them.
    """
    wrong = {
        "lacks {}": needed - stored.keys(),
        "has no place for {}": stored.keys() - own.keys(),
        "holds {} that are frozen here": (stored.keys() & own.keys()) - needed,
        "has in another shape {}": {n for n in stored.keys() & own.keys() if stored[n].shape != own[n].shape},
    }
    return ", ".join(text.format(f"{len(names)} weights ({min(names)} ...)") for text, names in wrong.items() if names)
