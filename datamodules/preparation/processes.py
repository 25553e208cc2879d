"""Pools of worker processes that start fast."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait

from datamodules.threads import use_one_thread

MAX_PROCESSES = 1024
_PRELOADED = [
    "__main__",
    "datamodules.sources.hypersim",
    "datamodules.sources.virtual_kitti",
    "datamodules.sources.folder",
]


def process_pool(workers: int, *modules: str) -> ProcessPoolExecutor:
    """Make a pool whose processes are forked from a clean server that has imported what they need.

    Each computes in one thread. The processes end with the one that made the pool, even if that is killed.
    A plain fork copies threads' locks and can hang; a spawned process imports the main program again, seconds each.

    Args:
        workers: number of processes.
        modules: names of further modules that they need.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([*_PRELOADED, *modules])
    if "forkserver" in methods:
        _start_server()
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start)


def _start_server() -> None:
    """Start the server with Ctrl-C held back: it would end amid its imports, with a traceback of its own."""
    resource_tracker.ensure_running()  # which lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all, but the one that made the pool decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_one_thread()


def _end_with_parent() -> None:
    """Wait for the end of the process that made the pool: a killed one cannot tell its workers to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
