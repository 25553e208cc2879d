"""Models for those who save or convert them: of stock classes, in float32, without what suits training alone."""

import copy
from typing import TypeVar

from torch import nn

from lightning_modules.networks.frozen import keep_as_ever

Model = TypeVar("Model", bound=nn.Module)


def plain_copy(model: Model) -> Model:
    """Return a copy of a model that is in float32 and eval mode; not compiled, trainable, checkpointed or frugal.

    Args:
        model: the model.
    """
    return make_plain(copy.deepcopy(model))


def make_plain(model: Model) -> Model:
    """Change a copy of a model to what ``plain_copy`` describes, and return it.

    Args:
        model: the copy; that is not compiled, for copies never are.
    """
    plain = model.float().eval().requires_grad_(False)
    keep_as_ever(plain)
    if getattr(plain, "is_gradient_checkpointing", False):
        plain.disable_gradient_checkpointing()  # type: ignore[operator]
    return plain
