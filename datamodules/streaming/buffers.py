"""Shared memory in which loader processes hand batches on, used again and again.

Fresh pages of shared memory cost more than what is written into them: 1.1 ms of processor time per sample of 1.5 MB, of
3.2 ms that a loader process took for all (one core of an AMD EPYC). So a loader process keeps the pieces that it once
took, and the training process, too, keeps them in its address space. The last byte of a piece says whether it is in
use: the loader process sets it, and the training process clears it when it has copied what was there.
"""

from dataclasses import dataclass, field
from os import getpid

import torch
from torch import Tensor

from geometry.torch_internals import shared_storage

# The byte that says so has a cache line to itself.
_TAIL = 64
_FREE, _IN_USE = 0, 1
# A loader process prepares a few batches ahead; if more are under way, nobody gives them back.
_MAX_PIECES = 32

# Pieces of other processes that are kept in this one's address space.
_known: dict[tuple[int, int], Tensor] = {}


@dataclass(frozen=True)
class Lent:
    """A piece of shared memory on its way to another process.

    Attributes:
        process: number of the process that lends it.
        piece: number of the piece there.
    """

    process: int
    piece: int


@dataclass
class BufferPool:
    """The pieces of shared memory of one loader process."""

    _pieces: dict[int, Tensor] = field(default_factory=dict)
    _count: int = 0

    def take(self, num_bytes: int) -> tuple[Tensor, Lent | None]:
        """Return memory for a batch, and what says whose it is.

        Args:
            num_bytes: size of the batch.

        Returns:
            (N,) uint8, not initialised, with N > num_bytes; None in place of ``Lent`` where it is used but once.
        """
        free = {number: piece for number, piece in self._pieces.items() if piece[-1] == _FREE}
        fitting = [number for number, piece in free.items() if len(piece) >= num_bytes + _TAIL]
        if fitting:
            number = min(fitting, key=lambda number: len(free[number]))
            piece = self._pieces[number]
        else:
            for number in free:  # too small, as a piece for another data set may be
                del self._pieces[number]
            storage = shared_storage(num_bytes + _TAIL)
            piece = torch.empty(0, dtype=torch.uint8).set_(storage)
            if len(self._pieces) >= _MAX_PIECES:
                return piece, None
            number, self._count = self._count, self._count + 1
            self._pieces[number] = piece
        piece[-1] = _IN_USE
        return piece, Lent(getpid(), number)


def give_back(piece: Tensor, lent: Lent) -> None:
    """Let the process that lent a piece use it again. What was there must have been copied.

    Args:
        piece: all of the piece, as ``BufferPool.take`` returned it.
        lent: whose it is.
    """
    _known[lent.process, lent.piece] = piece
    piece[-1] = _FREE


def forget_processes(processes: set[int]) -> None:
    """Give up the pieces of loader processes that have ended.

    Args:
        processes: their numbers.
    """
    for place in [place for place in _known if place[0] in processes]:
        del _known[place]


#: The pieces of this process, if it is a loader process.
POOL = BufferPool()
