"""What this project uses of PyTorch without PyTorch's promise to keep it: every private name of it stands here.

It lies in ``geometry`` because both packages above need it and neither may import the other; it needs torch alone.
``tests/geometry/test_torch_internals.py`` holds each part against the installed version, by what it does.
"""

from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import DataLoader

__all__ = [
    "LAST_RATES",
    "compiler_modes",
    "end_workers",
    "is_refusal_to_trace",
    "is_to_be_compiled",
    "raise_recompile_limit",
    "recompile_option",
    "shared_storage",
    "skips_by_itself",
    "tree_leaves",
    "tree_map_only",
]

#: Key of the learning rates in the state of a scheduler.
LAST_RATES = "_last_lr"


def skips_by_itself(optimizer: Optimizer) -> bool:
    """Return whether an optimiser leaves a step out when its attribute ``found_inf`` is 1, as fused ones do.

    Such an optimiser also divides gradients by its attribute ``grad_scale``, so that Lightning leaves them scaled.
    """
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def compiler_modes() -> list[str]:
    """Return the names of the modes of torch.compile with the backend inductor."""
    return list(torch._inductor.list_mode_options())


def raise_recompile_limit(least: int) -> None:
    """Let all code of this process together be compiled at least so often.

    Args:
        least: number of compilations; a larger limit that is set already stays.
    """
    settings = torch._dynamo.config
    settings.accumulated_recompile_limit = max(settings.accumulated_recompile_limit, least)


def recompile_option(limit: int) -> dict[str, int]:
    """Return the option of torch.compile that lets one region be compiled so often.

    Convention:
        Releases whose torch.compile has no such option know a limit for all regions of the process. It is raised to
        this one, never lowered, and no option is returned.

    Args:
        limit: number of compilations.
    """
    if "recompile_limit" in signature(torch.compile).parameters:
        return {"recompile_limit": limit}
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, limit)
    return {}


def is_to_be_compiled(module: nn.Module) -> bool:
    """Return whether ``module.compile`` was called, on this very module."""
    return module._compiled_call_impl is not None


def is_refusal_to_trace(error: BaseException) -> bool:
    """Return whether an error says that ``torch.export`` cannot hold a model for the sizes that it was asked for."""
    return isinstance(error, torch._dynamo.exc.TorchDynamoException)


def shared_storage(num_bytes: int) -> torch.UntypedStorage:
    """Return memory that other processes can use without a copy, not initialised.

    ``share_memory_`` of what exists already would copy it.
    """
    return torch.UntypedStorage._new_shared(num_bytes)


def end_workers(loader: DataLoader) -> list[Any]:
    """End the processes of a loader, also where a traceback still refers to it; the next iteration starts new ones.

    Args:
        loader: a loader, whether or not it has processes.

    Returns:
        The processes. One that is stuck may not have ended.
    """
    iterator: Any = loader._iterator
    loader._iterator = None
    workers = list(getattr(iterator, "_workers", []))
    if workers:
        iterator._shutdown_workers()
    return workers
