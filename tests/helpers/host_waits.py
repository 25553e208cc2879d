"""Finds where the host would wait for a GPU, on a machine without one."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_modules.training.logging_steps import is_logging_step

_ATEN, _C10D = torch.ops.aten, torch.ops.c10d

# What makes the host wait for a GPU: the value of a tensor, a shape that depends on values, or other hosts.
WAITING = {
    _ATEN._local_scalar_dense.default,
    _ATEN.nonzero.default,
    _ATEN.masked_select.default,
    _ATEN.is_nonzero.default,
    _ATEN.equal.default,
    _ATEN._unique2.default,
    _ATEN.repeat_interleave.Tensor,
    _ATEN.bincount.default,
    _C10D.barrier.default,
    _C10D.monitored_barrier_.default,
}
# What copies numbers of the host to a device, and waits for the copy.
_FROM_HOST = {torch.tensor, torch.as_tensor, torch.asarray}
# The guard asks for the verdict on the step before, whose copy began when that step ended.
_ALLOWED = {"_Step.wait"}
_OWN = re.compile("/(lightning_modules|datamodules|geometry)/")


class Waits:
    """A context that notes for what the host would wait, and where.

    Operations are seen as they are dispatched, in backward passes and within sharded tensors, too.

    Args:
        device: What stands for a GPU. With meta, whose tensors have no memory, copies from and to main memory are seen,
            and what is asked of tensors in main memory does not count.

    Attributes:
        found: what, and the lines that asked for it, the last one of them the project's.
        pauses: nothing is noted for now.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.found: list[str] = []
        self.pauses = False
        self._modes: list[Any] = []

    def __enter__(self) -> "Waits":
        self._modes = [_Operations(self), _Calls(self)]
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        while self._modes:
            self._modes.pop().__exit__(*error)

    def note(self, what: Any) -> None:
        stack = [*_frames(sys._getframe(1))]
        if self.pauses or _ALLOWED & {frame.f_code.co_qualname for frame in stack}:
            return
        asked = [frame for frame in stack if "/torch/" not in frame.f_code.co_filename]
        own = [frame for frame in asked if _OWN.search(frame.f_code.co_filename)]
        places = dict.fromkeys(_place(frame) for frame in (*asked[:1], *own[:1]))
        self.found.append(f"{what} at {', for '.join(places)}")


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            yield frame
        frame = frame.f_back


def _place(frame: FrameType) -> str:
    return f"{'/'.join(frame.f_code.co_filename.rsplit('/', 3)[1:])}:{frame.f_lineno}"


class _Operations(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # which is asked first then, and comes here with its parts
        asks = operation in WAITING or _indexes_by_value(operation, args)
        if (asks and self._is_there(args)) or _crosses(operation, args, kwargs):
            self.waits.note(operation)
        return operation(*args, **(kwargs or {}))

    def _is_there(self, args: Any) -> bool:
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
        return not tensors or any(tensor.device.type == self.waits.device for tensor in tensors)


class _Calls(TorchFunctionMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        target = kwargs.get("device")
        if function in _FROM_HOST:
            waits = target is not None and torch.device(target).type == self.waits.device
        elif function is torch.Tensor.new_tensor or (function is torch.Tensor.__getitem__ and _has_list(args[1])):
            waits = args[0].device.type == self.waits.device
        else:
            waits = False
        if waits:
            self.waits.note(function.__name__)
        return function(*args, **kwargs)


def _indexes_by_value(operation: Any, args: Any) -> bool:
    """Whether the shape of what is indexed depends on a mask."""
    return operation in (_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default) and any(
        index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
    )


def _crosses(operation: Any, args: Any, kwargs: Any) -> bool:
    """Whether the host waits for a copy between main memory and a device, where meta stands for a GPU.

    From main memory it need not, if it is told so: the little that is copied is put aside at once.
    """
    kwargs = kwargs or {}
    if operation is _ATEN._to_copy.default:
        source, target = args[0].device.type, kwargs.get("device")
        target = source if target is None else torch.device(target).type
        goes_on = kwargs.get("non_blocking", False)
    elif operation is _ATEN.copy_.default:
        target, source = (tensor.device.type for tensor in args[:2])
        goes_on = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
    else:
        return False
    return source != target and not (goes_on and source == "cpu")


def _has_list(index: Any) -> bool:
    return isinstance(index, list) or (isinstance(index, tuple) and any(isinstance(part, list) for part in index))


class Watch(Callback):
    """Writes what a run's steps waited for, on every rank, to waits-RANK.txt in the trainer's folder.

    It looks from the first micro-step to the end of training, at all that Lightning and every callback do. A step that
    is logged may wait, once its gradients are there.
    """

    def __init__(self) -> None:
        self.waits: Waits | None = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.waits is None:
            self.waits = Waits().__enter__()
        self.waits.pauses = False

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        assert self.waits is not None
        self.waits.pauses = is_logging_step(trainer, trainer.global_step + 1)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        assert self.waits is not None
        self.waits.__exit__(None, None, None)
        file = Path(trainer.default_root_dir) / f"waits-{trainer.global_rank}.txt"
        file.write_text("".join(f"{each}\n" for each in self.waits.found))


def found_in(runs: Path) -> list[str]:
    """Return what the ranks of a run under ``Watch`` waited for, each only once.

    Args:
        runs: the trainer's folder.
    """
    files = sorted(runs.glob("waits-*.txt"))
    assert files, "nobody watched"
    return sorted({line for file in files for line in file.read_text().splitlines()})


WATCH = "--trainer.callbacks+=tests.helpers.host_waits.Watch"
