"""All that waits for a GPU, in one command and within a time.

Run ``python -m benchmarks.on_gpu --minutes 9 --out on_gpu.json`` from the folder of the project on a machine with a
GPU. ``--size tiny --device cpu`` tries the same on a CPU. ``benchmarks/collect_wheels.py`` collects what a machine
without network lacks.

Contract: parts run one after another, each in a process of its own, in order of worth: right results first, then
memory against the plan, the step, prediction, memory where two image sizes alternate, and the loader beside the step,
on frames that are rendered and prepared for it unless ``--data`` names some. A part gets the time that is left; one
that does not end in it is ended, and those after it are not begun. The JSON and the rows (``--rows``) are written anew
after every part, so that whatever ends the command leaves what was found. Status 1: a part failed; one for which no
time was left does not count.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import ROOT, describe_machine
from benchmarks.models import IMAGE_SIZES
from geometry.files.writing import write_whole

_TAIL = 2000
# A part is not begun with less than this left, in seconds.
_LEAST_S = 5.0


@dataclass(frozen=True)
class Part:
    """One thing to run.

    Attributes:
        name: its name in the results.
        words: module and options of ``python -m``; ``{out}`` stands for the JSON file that it writes, ``{scratch}``
            for a folder that all parts share.
        environment: further variables.
    """

    name: str
    words: tuple[str, ...]
    environment: Mapping[str, str] | None = None


def parts_of(size: str, device: str, data: str | None) -> list[Part]:
    """Return what is run, in order of worth.

    Args:
        size: tiny or full.
        device: cpu or cuda.
        data: prepared data set to train on beside the loader; None renders and prepares one.
    """
    network = ("--size", size, "--device", device, "--out", "{out}")
    hardware = ("--config", "configs/hardware/h200.yaml")
    few = ("--repeats", "3", "--warmup", "1")
    is_tiny = size == "tiny"
    step = ("benchmarks.train_step", *network, *few) + (("--images", "2", "--batch_size", "2") if is_tiny else hardware)
    tests = (
        ("not gpu and not slow", "tests/lightning_modules/test_host_waits.py") if device == "cpu" else ("gpu", "tests")
    )
    found = [
        Part("tests", ("pytest", "-m", *tests)),
        Part(
            "gradients", ("benchmarks.numerics", *network, *(("--no-compile",) if is_tiny else ("--batch_size", "1")))
        ),
        Part("memory", ("benchmarks.planned_memory", *network, *(() if is_tiny else hardware))),
        Part("memory_24gb", ("benchmarks.planned_memory", *network, "--config", "configs/hardware/24gb.yaml")),
        Part(
            "step_eager_and_authors", (*step, "--variants", "channels_last", "--only", "authors", "ours+channels_last")
        ),
        Part("step_compiled", (*step, "--only", "ours")),
        Part("prediction", ("benchmarks.inference", *network, *few, *(("--no-compile",) if is_tiny else ()))),
    ]
    larger, smaller = (("64", "96"), ("64", "64")) if is_tiny else (("352", "1216"), ("480", "640"))
    two_sizes = ("benchmarks.planned_memory", *network, *(() if is_tiny else hardware), "--image_size", *larger)
    in_place = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    found += [
        Part("memory_largest_first", (*two_sizes, "--smaller_later", *smaller)),
        Part("memory_largest_later", (*two_sizes, "--smaller_first", *smaller)),
        Part("memory_largest_later_expandable", (*two_sizes, "--smaller_first", *smaller), in_place),
    ]
    if data is None:
        raw, data = "{scratch}/raw", "{scratch}/shards"
        count, sizes = ("8", ("96", "144")) if is_tiny else ("64", ("768", "1024"))
        rendered = tuple(map(str, IMAGE_SIZES[size]))
        found += [
            Part("render", ("train", "synthesize", "hypersim", "--output", raw, "--frames", count, "--size", *sizes)),
            Part("prepare", ("train", "prepare", "hypersim", "--raw", raw, "--output", data, "--size", *rendered)),
        ]
    found.append(Part("loader", (*step, "--only", "ours", "--data", data, "--workers", "1" if is_tiny else "8")))
    return found


def run_part(part: Part, scratch: Path, seconds: float) -> dict[str, Any]:
    """Run a part, and return what it found.

    Args:
        part: the part.
        scratch: folder for its JSON.
        seconds: how long it may take.
    """
    out = scratch / f"{part.name}.json"
    words = [word.replace("{out}", str(out)).replace("{scratch}", str(scratch)) for word in part.words]
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, **(part.environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that its own processes end with it
    )
    try:
        text, _ = process.communicate(timeout=seconds)
        state = "done" if process.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        state = "out of time"
    found: dict[str, Any] = {"state": state, "seconds": round(time.monotonic() - start, 1)}
    if out.is_file():
        found["results"] = json.loads(out.read_text(encoding="utf-8"))["results"]
    if state != "done" or "results" not in found:
        found["output"] = text[-_TAIL:]
    return found


def rows_of(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table for RESULTS.md.

    Args:
        found: what the parts found, by their names.
    """
    rows = ["| what | figure | state |", "|---|---|---|"]
    for name, part in found.items():
        figures = _figures(part.get("results", {})) or [_summary(part.get("output", ""))]
        rows += [f"| {name} | {figure} | {part['state']}, {part.get('seconds', 0)} s |" for figure in figures]
    return rows


def _figures(results: Mapping[str, Any]) -> list[str]:
    """Return a figure for every candidate of a benchmark."""
    if "ratio" in results:
        measured, planned = (results[key] / 2**30 for key in ("measured", "planned"))
        reserved = f", reserved {results['reserved'] / 2**30:.3f} GiB" if "reserved" in results else ""
        return [f"planned {planned:.3f} GiB, measured {measured:.3f} GiB: {results['ratio']}{reserved}"]
    figures = []
    for name, candidate in results.items():
        if not isinstance(candidate, dict):
            continue
        if "seconds_per_step" in candidate:
            peak = f", peak {candidate['peak_memory_gib']} GiB" if "peak_memory_gib" in candidate else ""
            waits = candidate.get("trainer", {})
            beside = f", with the trainer: {json.dumps(waits)}" if waits else ""
            figures.append(f"{name}: {candidate['seconds_per_step']['median']} s per step{peak}{beside}")
        elif "milliseconds" in candidate:
            figures.append(f"{name}: {candidate['milliseconds']['median']} ms, error {candidate['error']}")
        elif "gradient" in candidate:
            figures.append(f"{name}: gradient {candidate['gradient']}")
    return figures


def _summary(output: str) -> str:
    """Return the last line of an output that says anything."""
    lines = [line.strip() for line in output.splitlines() if re.search(r"\w", line)]
    return lines[-1].replace("|", "/")[:200] if lines else "no output"


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the parts, and return what they found."""
    ends_at = time.monotonic() + 60 * options.minutes
    parts = [
        part
        for part in parts_of(options.size, options.device, options.data)
        if not options.only or part.name in options.only
    ]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for part in parts:
            left = ends_at - time.monotonic()
            found[part.name] = run_part(part, Path(scratch), left) if left > _LEAST_S else {"state": "no time left"}
            print(
                f"{part.name}: {found[part.name]['state']}, {max(0, ends_at - time.monotonic()):.0f} s left", flush=True
            )
            record = {"benchmark": "on_gpu", **describe_machine(), "minutes": options.minutes, "results": found}
            write_whole(options.out, json.dumps(record, indent=2) + "\n")
            write_whole(options.rows or options.out.with_suffix(".md"), "\n".join(rows_of(found)) + "\n")
    return found


def main(args: list[str] | None = None) -> int:
    """Run the command.

    Args:
        args: the command line; None is that of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    has_gpu = torch.cuda.is_available()
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all parts together (default: %(default)s)")
    parser.add_argument("--size", choices=("tiny", "full"), default="full" if has_gpu else "tiny")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if has_gpu else "cpu")
    parser.add_argument("--data", help="prepared data set for the loader beside the step (default: rendered)")
    parser.add_argument("--only", nargs="+", help="names of the parts to run (default: all)")
    parser.add_argument("--out", type=Path, default=Path("on_gpu.json"), help="JSON file (default: %(default)s)")
    parser.add_argument("--rows", type=Path, help="file for the rows of RESULTS.md (default: beside the JSON)")
    found = run(parser.parse_args(args))
    return int(any(part["state"] == "failed" for part in found.values()))


if __name__ == "__main__":
    sys.exit(main())
