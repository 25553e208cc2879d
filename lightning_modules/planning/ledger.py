"""Keeps the books of a step: which tensors live when, where they were made, and how much was computed."""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from geometry.torch_internals import (
    ATTENTION,
    ATTENTION_BACKWARD,
    CONVOLUTIONS,
    DispatchMode,
    resizes_seen,
    tree_leaves,
)
from lightning_modules.networks.sharding import local

# CUDA's allocator hands out memory in blocks of this many bytes.
_BLOCK = 512
_NORM_BACKWARD = torch.ops.aten.native_group_norm_backward


@dataclass(frozen=True)
class Entry:
    """A piece of memory.

    Attributes:
        num_bytes: its size.
        kind: what it is for: weights, gradients, or the phase in which it was made.
        shape: of the first tensor that lay in it.
        dtype: its type.
        maker: the module that was running, or the operation.
    """

    num_bytes: int
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    maker: str


@dataclass
class Books:
    """What a ledger has found.

    Attributes:
        peak_bytes: the most that lived at once.
        peak_phase: the phase in which that was.
        phase_bytes: the most that lived at once, by phase.
        flops: operations by phase; a multiplication and an addition are two.
        convolution_flops: those of convolutions, by phase.
        at_peak: what lived at the peak, the largest first.
    """

    peak_bytes: int = 0
    peak_phase: str = ""
    phase_bytes: dict[str, int] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)
    convolution_flops: dict[str, int] = field(default_factory=dict)
    at_peak: list[Entry] = field(default_factory=list)

    def by_kind(self) -> dict[str, int]:
        """Return the bytes at the peak by kind, the most first."""
        found: dict[str, int] = defaultdict(int)
        for entry in self.at_peak:
            found[entry.kind] += entry.num_bytes
        return dict(sorted(found.items(), key=lambda item: -item[1]))


class Ledger(DispatchMode):
    """Books every storage that an operation makes, until it is freed, and the operations of matrix products.

    It works on real tensors as on fake ones; of what is sharded, it books this device's part. What a kernel needs for
    itself alone is not seen, with one exception: attention's backward pass on a GPU adds up the gradient of the queries
    in float32.

    Args:
        names: names of modules, to say where a tensor was made.
        for_gpu: Book sizes and temporary memory as on a GPU.
    """

    def __init__(self, names: Mapping[nn.Module, str], for_gpu: bool = True) -> None:
        super().__init__()
        self.books = Books()
        self.phase = "start"
        self._names, self._for_gpu = names, for_gpu
        self._current = 0
        self._live: dict[int, tuple[int, Any]] = {}
        self._entries: list[Entry] = []
        self._log: list[tuple[int, bool]] = []  # numbers of entries, and whether they came or went
        self._peak_at = 0
        self._running: list[nn.Module] = []
        self._flops: dict[str, int] = defaultdict(int)
        self._convolutions: dict[str, int] = defaultdict(int)

    @contextmanager
    def open(self) -> Iterator[Books]:
        """Keep books while the context lasts; they are complete after it."""
        hooks = [register_module_forward_pre_hook(self._begin), register_module_forward_hook(self._end)]
        try:
            with resizes_seen(self._resize), self:
                yield self.books
        finally:
            for hook in hooks:
                hook.remove()
            self.books.flops, self.books.convolution_flops = dict(self._flops), dict(self._convolutions)
            alive: set[int] = set()
            for number, came in self._log[: self._peak_at]:
                (alive.add if came else alive.discard)(number)
            self.books.at_peak = sorted((self._entries[each] for each in alive), key=lambda entry: -entry.num_bytes)
            self._live.clear()

    @contextmanager
    def in_phase(self, phase: str) -> Iterator[None]:
        """Count what happens as a phase; nested, the inner one counts."""
        before, self.phase = self.phase, phase
        self._note(0)
        try:
            yield
        finally:
            self.phase = before

    def marking(self, phase: str, function: Callable[..., Any], within: str) -> Callable[..., Any]:
        """Return a function that is a phase of its own where another phase calls it."""

        @wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            with self.in_phase(phase if self.phase == within else self.phase):
                return function(*args, **kwargs)

        return marked

    def book(self, tensor: Tensor, kind: str, name: str = "") -> None:
        """Book a tensor that is there already, or say what one that is booked is for.

        Args:
            tensor: the tensor.
            kind: what it is for.
            name: its name.
        """
        tensor = local(tensor)
        storage = tensor.untyped_storage()
        known = self._live.get(id(storage))
        if known is not None:
            entry = self._entries[known[0]]
            self._entries[known[0]] = Entry(entry.num_bytes, kind, tuple(tensor.shape), tensor.dtype, name)
            return
        self._add(tensor, kind, name)
        self._note(0)

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operation and book what it made."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.overloadpacket is _NORM_BACKWARD:
            # Of half-precision images with float32 weights, kernels give half precision; fake tensors come as float32.
            result = tuple(each if each is None else each.to(args[1].dtype) for each in result[:1]) + tuple(result[1:])
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and id((tensor := local(tensor)).untyped_storage()) not in self._live:
                self._add(tensor, self.phase, "")
                self._entries[-1] = self._described(func)
        self._note(self._temporary(func, args))
        self._count(func, args, kwargs, result)
        return result

    def _described(self, func: Any) -> Entry:  # noqa: ANN401
        entry = self._entries[-1]
        module = next((self._names[each] for each in reversed(self._running) if each in self._names), "")
        return Entry(entry.num_bytes, entry.kind, entry.shape, entry.dtype, module or str(func))

    def _add(self, tensor: Tensor, kind: str, maker: str) -> None:
        storage = tensor.untyped_storage()
        key, number, size = id(storage), len(self._entries), self._size(storage)
        self._entries.append(Entry(size, kind, tuple(tensor.shape), tensor.dtype, maker))

        def free(_: object) -> None:
            known = self._live.pop(key, None)
            if known is not None:
                self._current -= self._entries[known[0]].num_bytes
                self._log.append((known[0], False))

        self._live[key] = number, weakref.ref(storage, free)
        self._log.append((number, True))
        self._current += size

    def _size(self, storage: torch.UntypedStorage) -> int:
        return -(-storage.nbytes() // _BLOCK) * _BLOCK if self._for_gpu else storage.nbytes()

    def _resize(self, storage: torch.UntypedStorage) -> None:
        """Book a storage that was emptied, or filled again."""
        known = self._live.get(id(storage))
        if known is None:
            return
        before = self._entries[known[0]]
        entry = replace(before, num_bytes=self._size(storage))
        self._entries.append(entry)
        self._live[id(storage)] = len(self._entries) - 1, known[1]
        self._log += [(known[0], False), (len(self._entries) - 1, True)]
        self._current += entry.num_bytes - before.num_bytes
        self._note(0)

    def _note(self, temporary: int) -> None:
        books, now = self.books, self._current + temporary
        books.phase_bytes[self.phase] = max(now, books.phase_bytes.get(self.phase, 0))
        if now > books.peak_bytes:
            books.peak_bytes, books.peak_phase, self._peak_at = now, self.phase, len(self._log)

    def _temporary(self, func: Any, args: tuple[Any, ...]) -> int:  # noqa: ANN401
        if self._for_gpu and func.overloadpacket is ATTENTION_BACKWARD:
            return 4 * args[1].numel()
        return 0

    def _count(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:  # noqa: ANN401
        packet = func.overloadpacket
        if packet is ATTENTION:
            self._flops[self.phase] += sdpa_flop_count(*(each.shape for each in args[:3]))
        elif packet is ATTENTION_BACKWARD:
            self._flops[self.phase] += sdpa_backward_flop_count(*(each.shape for each in args[:4]))
        elif packet in flop_registry:
            amount = flop_registry[packet](*args, **kwargs, out_val=result)
            self._flops[self.phase] += amount
            if packet in CONVOLUTIONS:
                self._convolutions[self.phase] += amount

    def _begin(self, module: nn.Module, args: object) -> None:
        self._running.append(module)

    def _end(self, module: nn.Module, args: object, result: object) -> None:
        if module in self._running:  # those inside may have been left by an exception
            del self._running[len(self._running) - 1 - self._running[::-1].index(module) :]
