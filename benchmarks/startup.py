"""How long ``train.py --help`` takes, against importing the libraries that it stands on.

Run ``python -m benchmarks.startup --out startup.json`` from the folder of the project.

Contract: every repetition is a new process; candidates take turns; the file cache is warm. Counted are the processor
time of the process and, as ``wall``, the time on the clock. ``libraries`` imports lightning.pytorch and, from
diffusers, the UNet and the VAE.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT, report, summarize

LIBRARIES = (
    "import lightning.pytorch; from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL; "
    "from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel"
)
COMMANDS = {
    "libraries": ["-c", LIBRARIES],
    "help": ["train.py", "--help"],
    "fit_help": ["train.py", "fit", "--help"],
    "prepare_help": ["train.py", "prepare", "--help"],
}


def start(arguments: list[str]) -> tuple[float, float]:
    """Run Python once, without its output; return the seconds by the clock and of processor time."""
    begin = time.perf_counter()
    silence = [
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    process = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=silence)
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"python {' '.join(arguments)} failed")
    return time.perf_counter() - begin, used.ru_utime + used.ru_stime


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed starts of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    os.chdir(ROOT)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for number in range(options.repeats + 1):
        for name, arguments in COMMANDS.items():
            taken = start(arguments)
            if number:
                seconds[name].append(taken)
    results: dict[str, Any] = {}
    for name, taken in seconds.items():
        results[name] = {"wall": summarize([t[0] for t in taken]), "processor": summarize([t[1] for t in taken])}
    for name in ("help", "fit_help", "prepare_help"):
        ratio = results[name]["processor"]["median"] / results["libraries"]["processor"]["median"]
        results[f"ratio_{name}"] = round(ratio, 2)
    report("startup", results, options.out)


if __name__ == "__main__":
    main()
