"""Memory of a training process over many steps; it must stay flat.

Run ``python -m benchmarks.memory --steps 2000`` from the folder of the project. It trains the tests' tiny model on CPU
with two loader processes, a checkpoint every 200 steps and validations, and prints the resident memory of the training
process and of its loader processes, in MB.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from tests.helpers import runs


class ResidentMemory(Callback):
    """Prints the resident memory of this process and of its children every so many steps.

    Args:
        every_n_steps: Number of steps between two lines.
    """

    def __init__(self, every_n_steps: int = 200) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Print."""
        if trainer.global_step % self.every_n_steps == 0:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            loaders_mb = ", ".join(f"{_resident_mb(child):.1f}" for child in children)
            print(f"step {trainer.global_step}: {_resident_mb('self'):.1f} MB, loaders {loaders_mb}", flush=True)


def _resident_mb(process: str) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Train, and print what the run printed about memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="Optimiser steps.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = runs.prepare(Path(folder) / "data", max_steps=options.steps)
        status = runs.fit(
            Path(folder) / "runs",
            config,
            "--data.num_workers=2",
            "--trainer.accumulate_grad_batches=1",
            "--trainer.val_check_interval=500",
            "--checkpoints.every_n_steps=200",
            "--trainer.callbacks+=benchmarks.memory.ResidentMemory",
            timeout_s=None,
        )
        print("\n".join(line for line in runs.log_of(Path(folder) / "runs").splitlines() if line.startswith("step ")))
    raise SystemExit(status != [0])


if __name__ == "__main__":
    main()
