"""What the loaders for training and validation share: loader processes, bad samples, and errors that cross them."""

import re
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import active_children
from multiprocessing.util import Finalize
from types import FrameType

from torch.utils.data import DataLoader, IterableDataset

from datamodules.streaming.buffers import forget_processes
from datamodules.streaming.packing import PackedBatch
from datamodules.threads import use_one_thread
from geometry.batch import GeometryBatch
from geometry.errors import InputError, printable
from geometry.torch_internals import end_workers


@dataclass(frozen=True)
class Workers:
    """How batches are made in the background.

    Attributes:
        rank: number of this process among those that train together.
        world_size: how many train together.
        num_workers: loader processes of this rank; 0 loads in the process itself.
        prefetch_factor: batches that every loader process prepares ahead.
        pin_memory: put batches into page-locked memory, for faster copies to a GPU.
        timeout_s: seconds to wait for a batch from a loader process before giving up; 0 waits for ever.
        max_bad_samples: number of different bad samples after which the next one is an error.
        packed: hand batches on as they travel, for whoever brings them to a device and expands them there.
    """

    rank: int = 0
    world_size: int = 1
    num_workers: int = 0
    prefetch_factor: int = 2
    pin_memory: bool = False
    timeout_s: float = 0.0
    max_bad_samples: int = 0
    packed: bool = False


@dataclass(frozen=True)
class Failure:
    """An ``InputError`` on its way from a loader process to the trainer."""

    message: str


Delivery = tuple[PackedBatch, list[str]]

# Time that a loader process has left after SIGTERM: the trainer needs batches until its step is done, and ends it then.
_GRACE_S = 600


def data_loader(batches: IterableDataset, workers: Workers) -> DataLoader:
    """Return a loader of ready-made batches, with loader processes that live as long as it does."""
    in_background = workers.num_workers > 0
    loader: DataLoader = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers.num_workers,
        prefetch_factor=workers.prefetch_factor if in_background else None,
        persistent_workers=in_background,
        pin_memory=workers.pin_memory,
        worker_init_fn=_start_worker if in_background else None,
        timeout=workers.timeout_s if in_background else 0,
    )
    # Python tells its daemons to end with SIGTERM when it exits, and waits for them; these would not go at once.
    Finalize(None, _end_all_at_exit, exitpriority=0)
    return loader


def _start_worker(_worker_id: int) -> None:
    use_one_thread()
    # A scheduler that ends a job signals all of its processes, but only the trainer can tell when work is done.
    # A terminal does the same with Ctrl-C, or when it is closed.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _end_later)


def _end_later(number: int, frame: FrameType | None) -> None:
    signal.alarm(_GRACE_S)


def end_processes(loader: DataLoader) -> None:
    """End the processes of a loader, also where a traceback still refers to it; the next iteration starts new ones.

    Args:
        loader: what ``data_loader`` returned.
    """
    workers = end_workers(loader)
    for worker in workers:
        worker.kill()  # nothing if it has ended; but one that is stuck in reading has not
    forget_processes({worker.pid for worker in workers})


def _end_all_at_exit() -> None:
    for process in active_children():
        if process.daemon:
            process.kill()


@dataclass
class Receiver:
    """Takes batches from a loader and counts the bad samples in them.

    Attributes:
        max_bad_samples: number of different bad samples after which the next one is an error.
        packed: hand batches on as they travel.
    """

    max_bad_samples: int
    packed: bool = False
    _seen: set[str] = field(default_factory=set, init=False, repr=False)

    def next(self, stream: Iterator[Delivery | Failure]) -> GeometryBatch | PackedBatch | None:
        """Return the next batch, None after the last.

        Raises:
            InputError: reading failed; or there are too many bad samples; or a loader process died or is stuck; or
                there is no shared memory left to hand batches on.
        """
        try:
            item = next(stream, None)
        except (RuntimeError, ConnectionError, EOFError) as error:
            if _is_lack_of_shared_memory(error):
                raise InputError(
                    "no shared memory (/dev/shm) is left, in which loader processes hand batches on. Containers get "
                    "little of it: start them with docker run --ipc=host, or --shm-size=16g. Or lower "
                    "data.num_workers, data.prefetch_factor or data.batch_size."
                ) from error
            if not _is_loss_of_process(error):
                raise
            raise InputError(
                f"no batch came from the loader processes: {error} Memory may have run out (data.num_workers, "
                "data.shuffle_buffer), or reading is stuck (data.loader_timeout_s)."
            ) from error
        if item is None:
            return None
        if isinstance(item, Failure):
            raise InputError(item.message)
        batch, problems = item[0].landed(), item[1]
        for problem in problems:
            self._count(problem)
        return batch if self.packed else batch.expand()

    def _count(self, problem: str) -> None:
        if problem in self._seen:
            return
        self._seen.add(problem)
        if len(self._seen) > self.max_bad_samples:
            raise InputError(
                f"{problem} It is bad sample number {len(self._seen)}; data.max_bad_samples is {self.max_bad_samples}."
            )
        warnings.warn(f"skipped bad sample number {len(self._seen)}: {printable(problem)}", stacklevel=2)


def _is_lack_of_shared_memory(error: Exception) -> bool:
    """Tell a full /dev/shm: PyTorch asks for all pages at once, or dies by a signal at the first write."""
    words = "unable to allocate shared memory|unable to mmap .*Cannot allocate memory|killed by signal: Bus error"
    return re.search(words, str(error)) is not None


def _is_loss_of_process(error: Exception) -> bool:
    """Tell the end of a loader process, or of its patience, from an error within it."""
    if "in DataLoader worker process" in str(error):
        return False
    # The connection breaks when a process dies whose batch is on its way.
    return not isinstance(error, RuntimeError) or "DataLoader" in str(error)
