"""What all benchmarks share: warm-up, synchronisation, medians and quartiles, stopwatches, and a report.

Contract: candidates that are compared run alternately within one process and one run, on inputs that are drawn anew for
every repetition; the first repetitions are thrown away; a clock is read only when the device has finished. On a CPU one
thread computes, and its processor time counts, so that other programs matter little.
"""

import json
import os
import platform
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

LIBRARIES = ("torch", "lightning", "diffusers", "transformers", "numpy", "opencv-python-headless", "numcodecs")
ROOT = Path(__file__).resolve().parents[1]


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished its work; CPUs have, always."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(device: torch.device) -> float:
    """Return the seconds of a clock when a device has finished its work: of the wall, or of this processor."""
    synchronize(device)
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def use_one_thread() -> None:
    """Let one thread compute on the CPU."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def summarize(values: list[float], digits: int = 4) -> dict[str, Any]:
    """Return median, quartiles and number of some measurements, in their own unit."""
    low, median, high = (float(f"{value:.{digits}g}") for value in np.quantile(values, (0.25, 0.5, 0.75)))
    return {"median": median, "quartiles": [low, high], "repeats": len(values)}


def alternate(
    candidates: Mapping[str, Callable[[int], Any]], repeats: int, warmup: int, device: torch.device
) -> dict[str, list[float]]:
    """Return the seconds of every repetition of candidates that take turns.

    Args:
        candidates: what to time, by name; called with the number of the repetition, which seeds its inputs. What it
            returns is thrown away.
        repeats: timed repetitions of each.
        warmup: repetitions of each before the clock runs.
        device: where they compute.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(warmup + repeats):
        for name, run in candidates.items():
            start = clock(device)
            run(number)
            if number >= warmup:
                seconds[name].append(clock(device) - start)
    return seconds


def matrix_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the TFLOP/s of large matrix products on a device: what can be reached at most."""
    side = 8192 if device.type == "cuda" else 2048
    seconds = []
    for _ in range(6):
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        start = clock(device)
        left @ right
        seconds.append(clock(device) - start)
    return round(2 * side**3 / min(seconds[1:]) / 1e12, 4)


class Stopwatch:
    """Adds up the processor time spent in named stages, without the stages inside them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._since = time.process_time()

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time counted."""

        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            with self.stage(stage):
                return function(*arguments, **named)

        return timed

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside."""
        self._turn(name)
        try:
            yield
        finally:
            self._turn(None)

    def milliseconds(self, count: int) -> dict[str, float]:
        """Return the milliseconds of every stage, divided by a count, the longest first."""
        stages = {name: round(1000 * spent / count, 3) for name, spent in self.seconds.items()}
        return dict(sorted(stages.items(), key=lambda item: -item[1]))

    def _turn(self, stage: str | None) -> None:
        now = time.process_time()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now
        if stage is None:
            self._stack.pop()
        else:
            self._stack.append(stage)


def processor_seconds(process: int | str = "self") -> float:
    """Return the processor time that a process of this machine (Linux) has used so far, all threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children() -> list[str]:
    """Return the process ids of this process's children (Linux)."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def describe_machine() -> dict[str, Any]:
    """Return commit, versions and hardware."""
    cpu = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    hardware: dict[str, Any] = {
        "cpu": cpu.split(":")[-1].strip(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
    }
    if torch.cuda.is_available():
        hardware["gpu"] = torch.cuda.get_device_name()
        hardware["gpu_memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
        hardware["cuda"] = torch.version.cuda
    versions = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    return {"commit": _commit(), "versions": versions, "hardware": hardware}


def report(benchmark: str, results: Mapping[str, Any], out: Path | None) -> None:
    """Print results with commit, versions and hardware as JSON, and write them to a file if one is given."""
    text = json.dumps({"benchmark": benchmark, **describe_machine(), "results": results}, indent=2)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _commit() -> str:
    """Return the commit of the working folder, marked if files were changed since."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return git.stdout.strip()


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
