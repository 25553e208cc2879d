"""Break short training runs at random and compare their ends with an undisturbed run.

Every trial trains the tests' tiny model with ``--ckpt_path last`` until it is done, while faults befall it: SIGKILL,
SIGTERM, SIGUSR1, SIGINT and SIGHUP at random moments and at random micro-steps, checkpoints cut off or with a wrong
bit, damaged shards (mended before the next start), shards replaced while they are read, by the same bytes or by a part
of them, a clock that is set back, two runs at once, and a disk that is full or turns read-only (a tmpfs of a few
megabytes, where mounting is allowed). All kinds come once, in an order drawn by lot, before any comes again. Curves go
to TensorBoard or to a CSV file. Weights, optimiser, schedule and every logged value must end bit for bit as without
faults. Run it from the project's folder:

    python -m benchmarks.soak --minutes 60 --seed 0
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.soak_trial import Tally, Trial, log_with
from tests.helpers import runs

DISK_BYTES = 6 << 20
# What reads a logger's curves.
CURVES: dict[str, Callable[[Path], Any]] = {"TensorBoardLogger": runs.curves, "CSVLogger": runs.csv_curves}
ORPHANS_END_WITHIN_S = 60


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Put a tmpfs of few megabytes at a folder, where that is allowed."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    with suppress(OSError):
        subprocess.run(command, capture_output=True, check=False)
    try:
        yield
    finally:
        # Loader processes outlive a killed training by seconds, and keep its log open.
        latest_s = time.monotonic() + ORPHANS_END_WITHIN_S
        while folder.is_mount():
            left = subprocess.run(["umount", str(folder)], capture_output=True, text=True, check=False)
            if left.returncode and time.monotonic() > latest_s:
                raise RuntimeError(f"loader processes outlive their training: {left.stderr}")
            time.sleep(0.5 * bool(left.returncode))


def soak(minutes: float, seed: int, folder: Path, keep: Path) -> Tally:
    """Break runs for so many minutes and return what happened; copy the runs of a mismatch to a folder."""
    config = runs.prepare(folder / "data")
    tally, chance, deck = Tally(), random.Random(seed), list[str]()
    for name, curves in CURVES.items():
        own, again = folder / name, folder / f"{name}-again"
        begin_s = time.monotonic()
        for place in (own, again):
            assert runs.fit(place, config, *log_with(name, place)) == [0], runs.log_of(place)
        duration_s = (time.monotonic() - begin_s) / 2
        runs.assert_same_end(again, own, curves)
    begin_s = time.monotonic()
    while time.monotonic() - begin_s < 60 * minutes:
        own = folder / f"trial-{tally.trials}"
        with small_disk(own / "runs"):
            name = chance.choice(list(CURVES))
            trial = Trial(own, config, chance, tally, duration_s, name, deck)
            trial.finish(num_faults=chance.randint(1, 5), num_workers=chance.choice((0, 1, 3)))
            duration_s = trial.duration_s  # the machine may have become quicker, and faults would come too late
            try:
                runs.assert_same_end(trial.runs, folder / name, CURVES[name])
            except (AssertionError, OSError) as error:
                tally.mismatches.append(f"trial {tally.trials}: {str(error)[:300]}")
                shutil.copytree(trial.runs, keep / f"seed-{seed}-trial-{tally.trials}", dirs_exist_ok=True)
                print(f"MISMATCH {tally.mismatches[-1]}; its files are in {keep}", flush=True)
        tally.trials += 1
        shutil.rmtree(own)
        print(f"{tally.trials} trials, {sum(tally.faults.values())} faults", flush=True)
    return tally


def main() -> None:
    """Read the options, soak, print the result as JSON; status 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="How long to go on.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the faults (not of their moments).")
    parser.add_argument("--keep", type=Path, default=Path("runs/soak"), help="Where the files of a mismatch go.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = soak(options.minutes, options.seed, Path(folder), options.keep)
    result = vars(tally) | {"total_faults": sum(tally.faults.values()), "minutes": options.minutes}
    result |= {"seed": options.seed, "torch": torch.__version__, "cores": os.cpu_count(), "machine": platform.machine()}
    print(json.dumps(result, indent=2))
    raise SystemExit(bool(tally.mismatches or tally.lost or tally.unexpected))


if __name__ == "__main__":
    main()
