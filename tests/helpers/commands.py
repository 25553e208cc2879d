"""Every command on small data, in a process of its own that a fault meets."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import train
from benchmarks.wrong_options.values import RENDERED, Material
from tests.helpers import runs

TIMEOUT_S = 240


def names() -> list[str]:
    """Return all commands, those of groups with both words."""
    found = []
    for name, (place, _) in train.COMMANDS.items():
        commands = getattr(train.find_command(place), "commands", None) if place != train.TRAINER else None
        found += [f"{name} {below}" for below in commands()] if commands else [name]
    return found


def extend(material: Material) -> None:
    """Add what other commands leave behind: tested runs, and parts to merge."""
    folder = material.folder
    saved = ["--model=lightning_modules.SavedPredictions", f"--model.folder={material.predictions}"]
    data = ["--data=datamodules.Benchmarks", f"--data.root={folder}/benchmarks", "--data.num_workers=0"]
    for name in ("first", "second"):
        words = [*saved, "--model.task=lightning_modules.Depth", *data, f"--evaluation.output={folder}/{name}/test"]
        _must(["test", *words, "--evaluation.num_pictures=0"], folder)
    for part in (1, 2):
        words = ["prepare", *_own(material), f"--output={folder}/parts", "--samples_per_shard=1", f"--part={part}/2"]
        _must([*words, "--workers=1"], folder)


def _own(material: Material) -> list[str]:
    own = material.folder / "own"
    return ["folder", f"--images={own}/rgb", f"--depth={own}/depth", "--depth_scale=1000"]


def _must(words: list[str], folder: Path) -> None:
    status, printed = run(words, folder / "log.txt")
    assert status == 0, printed


def begin(name: str, material: Material, out: Path, workers: int = 2) -> list[str]:
    """Make the folder of a command's outputs, with what must lie there before, and return its command line.

    Args:
        name: one of ``names``.
        material: the data, extended.
        out: where to write to; it is made.
        workers: processes beside the command's own.
    """
    out.mkdir()
    if name == "prepare merge":
        shutil.copytree(material.folder / "parts", out / "parts")
        for file in sorted((out / "parts").rglob("*000001.*")):
            file.unlink()  # it lies in the other folder
    return lines(material, out, workers)[name]


def lines(material: Material, out: Path, workers: int = 2) -> dict[str, list[str]]:
    """Return a right command line for every command.

    Args:
        material: the data, extended; ``conditioning`` wants a base with text encoders in its folder ``sd3``.
        out: where to write to.
        workers: processes beside the command's own.
    """
    folder, run_folder = material.folder, str(material.run)
    config, checkpoint = f"--config={material.config}", f"--ckpt_path={run_folder}/checkpoints/last.ckpt"
    data = ["--data=datamodules.Benchmarks", f"--data.root={folder}/benchmarks", "--data.num_workers=0"]
    saved = ["--model=lightning_modules.SavedPredictions", f"--model.folder={material.predictions}"]
    two, layout = [f"--workers={workers}"], ["--frames=8", "--size", "32", "48"]
    found = {
        "fit": [config, f"--trainer.default_root_dir={out}", f"--data.num_workers={workers - 1}", "--ckpt_path=last"],
        "validate": [config, checkpoint],
        "test": [*saved, "--model.task=lightning_modules.Depth", *data, f"--trainer.default_root_dir={out}"],
        "predict": [f"{folder}/own/rgb", f"--run={run_folder}", f"--output={out}/p", "--processing_res=32"],
        "export": [f"--run={run_folder}", f"--output={out}/e"],
        "serve": [f"--run={run_folder}", "--port=7999"],
        "compare": [f"{folder}/first", f"{folder}/second", f"--output={out}/c", "--resamples=100"],
        "prepare hypersim": [f"--raw={folder}/hypersim", f"--output={out}/h", "--size", "48", "64", *two],
        "prepare virtual_kitti": [f"--raw={folder}/virtual_kitti", f"--output={out}/v", "--crop", "40", "96", *two],
        "prepare folder": [*_own(material)[1:], f"--output={out}/f", *two],
        **{
            f"prepare {name}": [f"--raw={folder}/{name}", f"--output={out}/{name}", "--size", "32", "48", *two]
            for name in RENDERED
        },
        "prepare merge": [f"{out}/parts", f"{folder}/parts"],
        "prepare check": [f"{folder}/data/a"],
        "prepare preview": [f"{folder}/data/a", f"--output={out}/sheet.png"],
        "synthesize hypersim": [f"--output={out}/s", *layout, *two],
        "synthesize virtual_kitti": [f"--output={out}/k", *layout, *two],
        "plan": [f"--config={material.config}", "--gpu=24GB", "--image_size", "32", "32"],
        "conditioning": [f"--base={folder}/sd3", f"--output={out}/c.safetensors"],
    }
    return {name: [*name.split(), *words] for name, words in found.items()}


def run(
    words: list[str],
    log: Path,
    stop_at: int | None = None,
    among: Any = (),
    times: int = 1,
    when_printed: str = "",
) -> tuple[Any, str]:
    """Run a command to its end.

    Args:
        words: the command line.
        log: what it prints goes here.
        stop_at: number of the file, among those that it opens, at which Ctrl-C comes; None for never, and 0 to print
            the files as lines ``opened PATH``.
        among: folders whose files are counted.
        times: how often Ctrl-C comes.
        when_printed: Ctrl-C comes when the command has printed this.

    Returns:
        The status, None for a hang, and what was printed.
    """
    process = runs._context.Process(target=_run, args=(words, str(log), stop_at, [str(f) for f in among], times))
    process.start()
    if when_printed:
        while process.is_alive() and not (log.exists() and when_printed in log.read_text(errors="replace")):
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
    process.join(TIMEOUT_S)
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return None, log.read_text(errors="replace")
    return process.exitcode, log.read_text(errors="replace")


def _run(words: list[str], log: str, stop_at: int | None, among: list[str], times: int) -> None:
    os.setsid()  # a terminal sends Ctrl-C to all processes of a command
    with open(log, "w", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        runs._heed_signals()
        if stop_at is not None:
            _stop_at_file(stop_at, tuple(among), times)
        try:
            train.main(words)
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def _stop_at_file(number: int, folders: tuple[str, ...], times: int) -> None:
    left = [number]

    def press() -> None:
        os.killpg(os.getpgid(0), signal.SIGINT)

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes) and os.fsdecode(arguments[0]).startswith(folders):
            left[0] -= 1
            if number == 0:
                os.write(1, f"opened {os.fsdecode(arguments[0])}\n".encode())
            elif left[0] == 0:
                press()
                for delay in range(1, times):
                    threading.Timer(0.05 * delay, press).start()

    sys.addaudithook(look)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """Mount a disk of some size in a folder; yields whether that was possible.

    Args:
        folder: where; it is made.
        size: for instance ``16k``.
    """
    folder.mkdir()
    is_there = remount(folder, f"size={size}", "-t", "tmpfs")
    try:
        yield is_there
    finally:
        if is_there:
            subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, options: str, *words: str) -> bool:
    """Mount a disk in a folder, or change one that is; returns whether that was possible."""
    try:
        return subprocess.run(["mount", *words, "-o", options, "tmpfs", folder], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
