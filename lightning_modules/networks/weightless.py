"""Bases without their weights: networks of the right shapes that hold nothing, to plan with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_IS_WEIGHTLESS: ContextVar[bool] = ContextVar("is_weightless", default=False)


_FEW = 4096


@contextmanager
def without_weights() -> Iterator[None]:
    """Let bases that are loaded in this context be built from their configs alone, on the device ``meta``."""
    token = _IS_WEIGHTLESS.set(True)
    try:
        yield
    finally:
        _IS_WEIGHTLESS.reset(token)


def is_weightless() -> bool:
    """Return whether bases are built from their configs alone."""
    return _IS_WEIGHTLESS.get()


def build_weightless(kind: Any, config: Mapping[str, Any]) -> Any:  # noqa: ANN401 - diffusers' or transformers' models
    """Return a model without weights, in float32 and eval mode.

    Args:
        kind: its class, of diffusers or transformers.
        config: its config.
    """
    import torch

    with torch.device("meta"):
        made = kind.from_config(dict(config)) if hasattr(kind, "from_config") else kind(kind.config_class(**config))
    model = made.float().eval()
    for module in model.modules():  # statistics of a few numbers are read when a network is put together
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.numel() <= _FEW:
                module.register_buffer(name, torch.ones(buffer.shape, dtype=buffer.dtype))
    return model
