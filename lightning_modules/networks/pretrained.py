"""Loads the parts of a base model that has been checked, and says in one line why one cannot be read."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from geometry.errors import InputError, one_line
from lightning_modules.networks.base_files import Base
from lightning_modules.networks.weightless import build_weightless, is_weightless

Part = TypeVar("Part")
Model = TypeVar("Model", bound=nn.Module)

# How diffusers says that a weight has another shape than the config describes; it goes on with what users must not do.
_OTHER_SHAPE = r"Cannot load because (\S+) expected shape torch\.Size\((\[.*?\])\), but got torch\.Size\((\[.*?\])\)"

# Tensors that old text encoders, and those of a whole CLIP, hold beside what a prompt's embedding needs.
_COUNTER = "num_batches_tracked"  # of a batch norm: conversions leave it out, and nothing that is not training reads it
_NEEDLESS = ("position_ids", "text_projection.weight")


def load_part(load: Callable[..., Part], base: Base, part: str, **options: Any) -> Part:  # noqa: ANN401
    """Return one part of a base model.

    Args:
        load: the ``from_pretrained`` of a diffusers or transformers class.
        base: the base, checked.
        part: subfolder, for instance ``tokenizer``.
        **options: passed on to ``load``.

    Raises:
        InputError: the part cannot be read.
    """
    try:
        return load(str(base.folder), subfolder=part, local_files_only=True, **options)
    except Exception as error:  # whatever the libraries raise on a config that somebody else wrote
        said = str(error) or "its config asks for what its class does not do"  # an assertion without a word
        reason = one_line(f"{type(error).__name__}: {said}", 240)
        raise InputError(f"cannot read {part} of {base}: {reason}") from error


def load_weights(kind: type[Model], base: Base, part: str, **options: Any) -> Model:  # noqa: ANN401
    """Return one part of a base model that has weights, every one of them from its safetensors.

    Args:
        kind: a model class of diffusers or transformers.
        base: the base, checked.
        part: name of a part that has weights.
        **options: passed on to its ``from_pretrained``.

    Raises:
        InputError: the part cannot be read, its weights are not those of the model that its config describes, or
            are not finite.
    """
    if is_weightless():
        return load_part(lambda *_, **__: build_weightless(kind, base.read_json(f"{part}/config.json")), base, part)
    variant = base.weights(part).variant
    options |= {"use_safetensors": True, "output_loading_info": True} | ({"variant": variant} if variant else {})
    load: Callable[..., tuple[Model, dict[str, Any]]] = getattr(kind, "from_pretrained")  # noqa: B009 - not of nn.Module
    try:
        model, report = load_part(load, base, part, **options)
    except InputError as error:
        shapes = re.search(_OTHER_SHAPE, one_line(error.__cause__)) if error.__cause__ else None
        if shapes is None:
            raise
        name, needed, found = shapes.groups()
        raise _does_not_fit(base, part, f"have {name} as {found} in place of {needed}") from error
    wrong = {
        "lack": [name for name in report["missing_keys"] if not name.endswith(_COUNTER)],
        "have in another shape": report["mismatched_keys"],
        "hold beside that": [name for name in report["unexpected_keys"] if not name.endswith(_NEEDLESS)],
    }
    for verb, names in wrong.items():
        if names:
            raise _does_not_fit(base, part, f"{verb} {_listed(names)}")
    check_finite(model, base, part)
    return model


def _does_not_fit(base: Base, part: str, what: str) -> InputError:
    return base.refusal(
        f"{part}/{base.parts[part].stem}.safetensors",
        f"does not fit {part}/config.json: the weights {what}. "
        "Needed: the weights of the model that the config describes, all of them.",
    )


def load_encoder(kind: type[Model], base: Base, part: str, dtype: torch.dtype) -> Model:
    """Return an encoder of a base, one of transformers.

    Args:
        kind: its class.
        base: the base, checked.
        part: its name.
        dtype: precision that it is computed in.

    Raises:
        InputError: it cannot be read, or its weights do not fit.
    """
    with quiet_transformers():
        return load_weights(kind, base, part, dtype=dtype, ignore_mismatched_sizes=True)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers say nothing: what is wrong with weights is said in one line here, not in a table."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def check_finite(model: nn.Module, base: Base, part: str) -> None:
    """Check that no weight is NaN or infinite.

    Args:
        model: a part of the base.
        base: the base, for the message.
        part: the part's name.

    Raises:
        InputError: a weight is not finite.
    """
    for name, weight in model.named_parameters():
        # A sum reads a tensor once and makes no second one; only one that overflows needs a closer look.
        if not weight.sum().isfinite() and not weight.isfinite().all():
            raise base.refusal(part, f"has weights that are not finite ({name} ...). The base is damaged.")


def _listed(names: Any) -> str:  # noqa: ANN401 - of names, or of tuples that begin with them
    ordered = sorted(name if isinstance(name, str) else str(name[0]) for name in names)
    return f"{ordered[0]} and {len(ordered) - 1} more" if len(ordered) > 1 else ordered[0]
