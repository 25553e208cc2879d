"""Loader and preparation processes compute in one thread each: they share the work, and more would be in the way."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch
from numcodecs import blosc
from threadpoolctl import threadpool_limits

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def use_one_thread() -> None:
    """Let OpenCV, Blosc, PyTorch and NumPy's linear algebra compute in the thread that calls them, from now on.

    Left alone, each starts a thread per core in every process. Sums keep one order, too, so that bytes do not depend on
    the number of cores.
    """
    # For what is imported only later: SciPy brings a library of its own.
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    threadpool_limits(1)
    _limit()


def _limit() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # one thread; 1 would wait for threads of a pool, which a forked process has not got
    blosc.use_threads = False
    blosc.set_nthreads(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Do so for a while."""
    before = torch.get_num_threads(), cv2.getNumThreads(), blosc.use_threads, blosc.get_nthreads()
    with threadpool_limits(1):
        _limit()
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            cv2.setNumThreads(before[1])
            blosc.use_threads = before[2]
            blosc.set_nthreads(before[3])
