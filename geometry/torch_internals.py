"""What this project uses of PyTorch without PyTorch's promise to keep it: every private name of it stands here.

It lies in ``geometry`` because both packages above need it and neither may import the other; it needs torch alone.
``tests/geometry/test_torch_internals.py`` holds each part against the installed version, by what it does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map_only as tree_map_only
from torch.utils.data import DataLoader

#: Sees every operation on tensors while it is entered.
DispatchMode = TorchDispatchMode
#: Key of the learning rates in the state of a scheduler.
LAST_RATES = "_last_lr"

_ATEN = torch.ops.aten
#: What attention is on a CPU, and its backward pass; they keep what flash attention on a GPU keeps.
ATTENTION = _ATEN._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = _ATEN._scaled_dot_product_flash_attention_for_cpu_backward
#: The operations that convolutions are, backward passes included.
CONVOLUTIONS = (_ATEN.convolution, _ATEN._convolution, _ATEN.convolution_backward)


def fake_tensors() -> AbstractContextManager[Any]:
    """Return a context in which tensors have shape and type, but neither memory nor values."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import

    return FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def fake_ranks(count: int) -> Iterator[Any]:
    """Let this process be the first of many that are not there: what they say is made up.

    Args:
        count: number of ranks.

    Yields:
        The mesh of their devices, which stand for CPUs.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
    try:
        yield init_device_mesh("cpu", (count,))
    finally:
        dist.destroy_process_group()


@contextmanager
def resizes_seen(by: Callable[[torch.UntypedStorage], None]) -> Iterator[None]:
    """Hear of every storage whose size is changed in place, which no operation on tensors shows: FSDP2 does it.

    Args:
        by: is called with the storage afterwards.
    """
    plain = torch.UntypedStorage.resize_

    def resize(storage: Any, size: int) -> Any:  # noqa: ANN401
        result = plain(storage, size)
        by(storage)
        return result

    torch.UntypedStorage.resize_ = resize  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.UntypedStorage.resize_ = plain  # type: ignore[method-assign]


@contextmanager
def cast_under_autocast(names: Sequence[str], dtype: torch.dtype) -> Iterator[None]:
    """Let autocast on CPUs compute further operations in a wider type than that of their half-precision inputs.

    Args:
        names: operations of ``torch.ops.aten``, with their overloads.
        dtype: the type.
    """
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    library = torch.library.Library("aten", "IMPL")

    def casting(operation: Any) -> Any:  # noqa: ANN401
        def cast(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            with torch._C._ExcludeDispatchKeyGuard(key):
                wide = tree_map_only(torch.Tensor, widened, (args, kwargs))
                return operation(*wide[0], **wide[1])

        return cast

    def widened(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype) if tensor.dtype in (torch.bfloat16, torch.float16) else tensor

    try:
        for name in names:
            full = f"aten::{name}"
            if not torch._C._dispatch_has_kernel_for_dispatch_key(full, "AutocastCPU"):
                packet, _, overload = name.partition(".")
                library.impl(name, casting(getattr(getattr(_ATEN, packet), overload or "default")), "AutocastCPU")
        yield
    finally:
        library._destroy()


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


def is_failed_compilation(error: BaseException) -> bool:
    """Whether the compiler behind ``torch.compile`` failed: there is none, or a file in its cache is damaged."""
    from torch._dynamo.exc import BackendCompilerFailed  # slow to import

    return isinstance(error, BackendCompilerFailed)


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
