"""One training of a soak, and the faults that befall it."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lightning_modules.training.checkpoint_files import LAST
from lightning_modules.training.run_folders import newest_run
from tests.helpers import runs

SPARE_BYTES = 100 << 10
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
REQUEUE, STOPPED, MISTAKE = 75, 130, 2
FAULTS = (
    *(number.name for number in SIGNALS),
    *("damaged checkpoint", "clock set back", "two at once", "damaged shard", "replaced shard"),
    *("full disk", "read-only disk"),
)
NUM_STEPS, MICRO_STEPS_PER_STEP = 9, 3


@dataclass
class Tally:
    """What happened.

    Attributes:
        trials: trainings that came to their end.
        starts: starts of train.py.
        faults: number of faults by kind.
        mismatches: trials whose end differs, with the first difference.
        lost: starts that found no usable checkpoint though there had been one.
        unexpected: ends of train.py with a status that the fault does not explain.
    """

    trials: int = 0
    starts: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    mismatches: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


class Trial:
    """One training, broken again and again.

    Args:
        folder: its own copy of the data, and its runs.
        config: configuration of the undisturbed run.
        chance: source of all random choices.
        tally: where to count.
        duration_s: how long an undisturbed run takes; it becomes that of the last one that a fault came too late for.
        logger: name of the logger.
        deck: the kinds of fault that are still to come; refilled by trials.
    """

    def __init__(
        self,
        folder: Path,
        config: Path,
        chance: random.Random,
        tally: Tally,
        duration_s: float,
        logger: str,
        deck: list[str],
    ) -> None:
        self._folder, self._chance, self._tally, self.duration_s = folder, chance, tally, duration_s
        self._deck = deck
        self._data = shutil.copytree(config.parent, folder / "data")
        self._config = self._data / config.name
        # Checkpoints name their base: it stays where that of the undisturbed run is.
        text = config.read_text().replace(str(config.parent), str(self._data))
        self._config.write_text(text.replace(f"{self._data}/base", f"{config.parent}/base"))
        self.runs = folder / "runs"
        self._logger = log_with(logger, self.runs)

    def finish(self, num_faults: int, num_workers: int) -> None:
        """Train with so many faults, then to the end."""
        for number in range(num_faults):
            begin_s = time.monotonic()
            kind, before = next_fault(self._deck, self._chance), self._tally.faults.total()
            status = self._faults()[kind](num_workers)
            if self._tally.faults.total() == before and self._deck:
                self._deck.insert(0, kind)  # it did not come about; it is the last of those that are to come
            if status == [0]:  # it was over before the fault
                if number == 0:
                    self.duration_s = time.monotonic() - begin_s
                return
        status = self._start(num_workers)
        if status != [0]:
            self._tally.unexpected.append(f"end: status {status}, {runs.log_of(self.runs)[-300:]}")

    def _faults(self) -> dict[str, Callable[[int], list[int]]]:
        """Return what brings about each kind of fault, given a number of loader processes."""
        return {
            **{number.name: partial(self._signal, number=number) for number in SIGNALS},
            "damaged checkpoint": self._damage_checkpoint,
            "clock set back": self._clock,
            "two at once": self._two_at_once,
            "damaged shard": self._shard,
            "replaced shard": self._replaced_shard,
            "full disk": self._disk,
            "read-only disk": self._read_only,
        }

    def _start(
        self, num_workers: int, *options: str, after_s: float | None = None, fault: Callable[[Any], object] = bool
    ) -> list[int]:
        """Start train.py, let something befall it after some time if asked, and return the statuses it ended with."""
        had, told_before, begin_s = newest_run(self.runs / "tiny"), self._told(), time.monotonic()
        process = self._begin(num_workers, *options)
        process.join(after_s)
        if process.is_alive():
            fault(process)
        process.join()
        told = self._told().removeprefix(told_before)
        print(f"  status {process.exitcode} after {time.monotonic() - begin_s:.1f} s", flush=True)
        if had is not None and ("starting afresh" in told or "There is no other one" in told):
            self._tally.lost.append(told[-300:])
        return [process.exitcode]

    def _begin(self, num_workers: int, *options: str) -> Any:  # noqa: ANN401 - a process of a context
        usual = [f"--data.num_workers={num_workers}", "--data.max_bad_samples=0"]
        self._tally.starts += 1
        (process,) = runs.start(self.runs, self._config, *usual, *self._logger, *options)
        return process

    def _some_time_s(self) -> float:
        return self._chance.uniform(0.1, 1.0) * self.duration_s

    def _note(self, fault: str, status: list[int], *right: int) -> list[int]:
        """Count a fault that ended a run, and complain where it ended with a status that the fault does not explain."""
        self._tally.faults[fault] += status != [0]
        if status[0] not in (0, *right):
            self._tally.unexpected.append(f"{fault}: status {status}, {runs.log_of(self.runs)[-300:]}")
        return status

    def _told(self) -> str:
        """Return what the starts so far printed."""
        return runs.log_of(self.runs) if (self.runs / "log-0.txt").exists() else ""

    def _signal(self, num_workers: int, number: signal.Signals | None = None) -> list[int]:
        number = number or self._chance.choice(SIGNALS)
        name = number.name
        if self._chance.random() < 0.5:
            kill = partial(_send, number)
            status = self._start(num_workers, after_s=self._some_time_s(), fault=kill)
        else:
            status = self._start(num_workers, *runs.kill_at(self._micro_step_ahead(), name))
        # A signal that comes before training or after it ends the process as signals do.
        return self._note(name, status, -number, STOPPED if number == signal.SIGINT else REQUEUE)

    def _micro_step_ahead(self) -> int:
        """Return a micro-step that the run has not come to by its last checkpoint."""
        done = 0
        if newest_run(self.runs / "tiny") is not None:
            with suppress(Exception):  # a damaged checkpoint; the run will go on from the one before
                done = runs.last(self.runs)["global_step"]
        return self._chance.randrange(MICRO_STEPS_PER_STEP * min(done, NUM_STEPS - 1), MICRO_STEPS_PER_STEP * NUM_STEPS)

    def _damage_checkpoint(self, num_workers: int) -> list[int]:
        status = self._signal(num_workers)
        run = newest_run(self.runs / "tiny")
        last = run and run / "checkpoints" / LAST
        if status == [0] or last is None or not last.is_file() or not (last.parent / "previous.ckpt").is_file():
            return status
        data = bytearray(last.read_bytes())
        if self._chance.random() < 0.5:
            del data[self._chance.randrange(len(data)) :]
        else:
            data[self._chance.randrange(len(data) // 4, len(data) // 2)] ^= 1
        # A disk damages the file in place; but its other names are other files there.
        last.unlink()
        last.write_bytes(data)
        self._tally.faults["damaged checkpoint"] += 1
        return status

    def _shard(self, num_workers: int) -> list[int]:
        shard = self._chance.choice(sorted(self._data.glob("*/train/*.tar")))
        whole = shard.read_bytes()
        shard.write_bytes(whole[: self._chance.randrange(len(whole) - 1024)])
        # 0: the rest of the run did not need what is missing
        status = self._note("damaged shard", self._start(num_workers), MISTAKE)
        shard.write_bytes(whole)
        return status

    def _replaced_shard(self, num_workers: int) -> list[int]:
        """Put another file in a shard's place while the run is reading: the same bytes, or a part of them."""
        shard = self._chance.choice(sorted(self._data.glob("*/train/*.tar")))
        whole = shard.read_bytes()
        is_part = self._chance.random() < 0.5
        other = whole[: self._chance.randrange(len(whole) - 1024)] if is_part else whole

        def replace(_: object) -> None:
            shard.with_suffix(".new").write_bytes(other)
            os.replace(shard.with_suffix(".new"), shard)

        status = self._start(num_workers, after_s=self._some_time_s(), fault=replace)
        self._tally.faults["shard replaced by its bytes"] += not is_part
        self._note("shard replaced by a part", status, *([MISTAKE] if is_part else []))
        shard.write_bytes(whole)
        return status

    def _clock(self, num_workers: int) -> list[int]:
        step = self._micro_step_ahead()
        kill = runs.kill_at(min(step + 4, MICRO_STEPS_PER_STEP * NUM_STEPS - 1))
        status = self._start(num_workers, *runs.set_clock_back_at(step), *kill)
        return self._note("clock set back, then SIGKILL", status, -signal.SIGKILL)

    def _two_at_once(self, num_workers: int) -> list[int]:
        """Start the same command once more while it runs; one is refused, or the second has a folder of its own.

        On a busy machine, the second may be the first to lock the folder.
        """
        second: list[Any] = []
        status = self._start(
            num_workers, after_s=0.3 * self._some_time_s(), fault=lambda _: second.append(self._begin(num_workers))
        )
        for process in second:
            process.join()
            self._note("second run", [process.exitcode], MISTAKE)
        may_be_refused = all(process.exitcode == 0 for process in second)
        return self._note("run beside a second one", status, *([MISTAKE] if may_be_refused else []))

    def _read_only(self, num_workers: int) -> list[int]:
        """Let the folder of all runs become read-only for a while, before a start or amid it."""
        place = self.runs / "tiny"
        if not self.runs.is_mount() or not place.is_dir():
            return self._signal(num_workers)
        after_s = self._chance.choice((0.0, self._some_time_s()))
        status = self._start(num_workers, after_s=after_s, fault=lambda _: _make_read_only(place))
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)  # nothing, if it was over before
        return self._note("read-only disk", status, MISTAKE)

    def _disk(self, num_workers: int) -> list[int]:
        if not self.runs.is_mount():
            return self._signal(num_workers)
        filler = self.runs / "filler"
        with open(filler, "wb") as file, suppress(OSError):
            free = shutil.disk_usage(self.runs).free
            file.write(bytes(max(0, free - SPARE_BYTES)))
        status = self._start(num_workers)
        filler.unlink()
        return self._note("full disk", status, MISTAKE)


def next_fault(deck: list[str], chance: random.Random) -> str:
    """Take the next kind of fault: all kinds come once, in an order drawn by lot, before any comes again.

    Args:
        deck: kinds that are still to come, the next one last; filled anew when it is empty.
        chance: source of the order.
    """
    if not deck:
        deck += chance.sample(FAULTS, len(FAULTS))
    return deck.pop()


def log_with(logger: str, folder: Path) -> list[str]:
    """Return the options that let a logger write into the folders of runs below a folder."""
    own = f"--trainer.logger=lightning.pytorch.loggers.{logger}"
    return [own, f"--trainer.logger.save_dir={folder}", "--trainer.logger.name=tiny"]


def _send(number: int, process: Any) -> None:  # noqa: ANN401
    os.kill(process.pid, number)


def _make_read_only(folder: Path) -> None:
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
