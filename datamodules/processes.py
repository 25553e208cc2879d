"""Pools of worker processes that start fast."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

_PRELOADED = [
    "__main__",
    "datamodules.synthetic.raw_layout",
    "datamodules.hypersim",
    "datamodules.virtual_kitti",
    "datamodules.folder",
]


def process_pool(workers: int, initializer: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """Make a pool whose processes are forked from a clean server that has imported what they need.

    A plain fork copies threads' locks and can hang; a spawned process imports the main program again, seconds each.

    Args:
        workers: number of processes.
        initializer: called in every process at its start.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(_PRELOADED)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=initializer)
