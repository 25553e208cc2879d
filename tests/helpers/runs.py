"""Whole runs of train.py on small data, in processes that a test may kill, and the comparison of their ends."""

import contextlib
import csv
import faulthandler
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_modules.training.run_folders import newest_run
from lightning_modules.training.val_scores import read_scores
from tests.helpers.planes import make_dataset
from tests.helpers.tiny import build_base

# The server imports the slow libraries once; every run is forked from it and starts within a fraction of a second.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["train", "datamodules", "lightning_modules.networks.stable_diffusion", "tests.helpers.runs"]
)

SHARDS = {"a": [5, 4, 6, 5], "b": [3, 4]}
TIMEOUT_S = 180


def start_server() -> None:
    """Start the server now; a test that came first would start one that has not imported what runs need."""
    forkserver.ensure_running()


def prepare(folder: Path, max_steps: int = 9, network: dict[str, Any] | None = None) -> Path:
    """Write two data sets, a tiny base and a configuration; return the configuration.

    An update takes 3 micro-batches, an epoch has 7: updates lie across workers, and the last one of an epoch is short.

    Args:
        folder: where to.
        max_steps: updates of the run.
        network: the network's section; by default a Stable Diffusion, whose base is written, too.
    """
    for name, shards in SHARDS.items():
        make_dataset(folder / name, name, {"train": shards, "val": [3]}, size=(16, 16), normals=False)
    if network is None:
        arguments = {"base": str(build_base(folder / "base")), "noise": "gaussian"}
        network = {"class_path": "lightning_modules.StableDiffusion", "init_args": arguments}
    content = {
        "name": "tiny",
        "model": {
            "class_path": "lightning_modules.SingleStepEstimator",
            "init_args": {"network": network, "task": "lightning_modules.Depth", "warmup_steps": 3},
        },
        "data": {
            "class_path": "datamodules.GeometryDataModule",
            "init_args": {
                "datasets": [
                    {"path": str(folder / name), "weight": weight} for name, weight in (("a", 3.0), ("b", 1.0))
                ],
                "num_workers": 0,
                "val_num_workers": 0,
                "batches_per_epoch": 7,
                "shuffle_buffer": 3,
            },
        },
        "checkpoints": {"every_n_steps": 2},
        "ema": {"decay": 0.9},
        "panels": {"num_images": 0},
        "trainer": {
            "accelerator": "cpu",
            "deterministic": True,
            "max_steps": max_steps,
            "accumulate_grad_batches": 3,
            "val_check_interval": 5,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
        },
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


class SendSignal(Callback):
    """Sends this process a signal at the start of a micro-step, counted from the start of the run.

    Args:
        micro_step: Number of the micro-step; validation and saving count with the one before them.
        name: Name of the signal.
        rank: Rank that gets it.
    """

    def __init__(self, micro_step: int, name: str = "SIGKILL", rank: int = 0) -> None:
        self.micro_step, self.name, self.rank = micro_step, name, rank

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop.total_batch_idx == self.micro_step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), signal.Signals[self.name])


class SendSignalOutsideSteps(Callback):
    """Sends this process a signal while no step is under way.

    Args:
        moment: before the first step, or in the middle of the validation that follows the last one.
        name: Name of the signal.
    """

    def __init__(self, moment: Literal["before", "after"], name: str = "SIGTERM") -> None:
        self.moment, self.name = moment, name

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self.moment == "before":
            os.kill(os.getpid(), signal.Signals[self.name])

    def on_validation_batch_start(self, trainer: Any, *args: Any) -> None:
        if self.moment == "after" and trainer.state.fn == "validate":
            os.kill(os.getpid(), signal.Signals[self.name])


class FillDisk(Callback):
    """Forbids this process to write files of more than so many bytes from a micro-step on, as a full disk would.

    Args:
        micro_step: Number of the micro-step, counted from the start of the run.
        max_bytes: Largest size of a file.
    """

    def __init__(self, micro_step: int, max_bytes: int = 300_000) -> None:
        self.micro_step, self.max_bytes = micro_step, max_bytes

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop.total_batch_idx == self.micro_step:
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.max_bytes, most))


class SetClockBack(Callback):
    """Lets Python's clock of the time of day jump back in this process at a micro-step, as a corrected clock would.

    The machine's own clock stays as it is: other programs need it.

    Args:
        micro_step: Number of the micro-step, counted from the start of the run.
        hours: How far.
    """

    def __init__(self, micro_step: int, hours: float = 5.0) -> None:
        self.micro_step, self.hours = micro_step, hours

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop.total_batch_idx == self.micro_step:
            right = time.time
            time.time = lambda: right() - 3600 * self.hours


def set_clock_back_at(micro_step: int) -> list[str]:
    """Return the options that let the clock of a run jump back."""
    return ["--trainer.callbacks+=tests.helpers.runs.SetClockBack", f"--trainer.callbacks.micro_step={micro_step}"]


def fill_disk_at(micro_step: int) -> list[str]:
    """Return the options that let a run find the disk full when it saves next."""
    return ["--trainer.callbacks+=tests.helpers.runs.FillDisk", f"--trainer.callbacks.micro_step={micro_step}"]


def kill_at(micro_step: int, name: str = "SIGKILL", rank: int = 0) -> list[str]:
    """Return the options that end a run with a signal."""
    return [
        "--trainer.callbacks+=tests.helpers.runs.SendSignal",
        f"--trainer.callbacks.micro_step={micro_step}",
        f"--trainer.callbacks.name={name}",
        f"--trainer.callbacks.rank={rank}",
    ]


def signal_outside_steps(moment: Literal["before", "after"], name: str) -> list[str]:
    """Return the options that send a run a signal before its first step or after its last one."""
    return [
        "--trainer.callbacks+=tests.helpers.runs.SendSignalOutsideSteps",
        f"--trainer.callbacks.moment={moment}",
        f"--trainer.callbacks.name={name}",
    ]


def _train(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    import train

    os.environ.update(environment)
    with open(log, "a", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        multiprocessing.set_start_method("fork", force=True)  # as in a process that was not forked from a server
        _heed_signals()
        torch.set_num_threads(1)
        faulthandler.dump_traceback_later(TIMEOUT_S - 10, file=file)
        try:
            train.main(arguments)
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def _heed_signals() -> None:
    """Take the signals that whoever started the tests ignores, as nohup does and a shell for its background jobs."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def start(runs: Path, config: Path, *options: Any, world_size: int = 1, command: str = "fit") -> list[Any]:
    """Start ``train.py COMMAND --ckpt_path last`` on one or several ranks; output goes to runs/log-RANK.txt."""
    runs.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = [f"--trainer.default_root_dir={runs}", "--ckpt_path=last", f"--trainer.devices={world_size}"]
    arguments = [command, f"--config={config}", *own, *map(str, options)]
    processes = []
    for rank in range(world_size):
        environment = {}
        if world_size > 1:
            environment = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world_size)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        process = _context.Process(target=_train, args=(arguments, str(runs / f"log-{rank}.txt"), environment))
        process.start()
        processes.append(process)
    return processes


def fit(runs: Path, config: Path, *options: Any, world_size: int = 1, timeout_s: float | None = TIMEOUT_S) -> list[int]:
    """Run ``train.py fit --ckpt_path last`` and return the exit code of every rank; -9 stands for SIGKILL."""
    return finish(start(runs, config, *options, world_size=world_size), runs, timeout_s)


def finish(processes: list[Any], runs: Path, timeout_s: float | None = TIMEOUT_S) -> list[int]:
    """Wait for the ranks that ``start`` started and return their exit codes."""
    for process in processes:
        process.join(timeout_s)
        if process.is_alive():
            for each in processes:
                each.kill()
            raise AssertionError(f"rank {processes.index(process)} hangs:\n{log_of(runs)[-3000:]}")
    return [process.exitcode for process in processes]


def log_of(runs: Path, rank: int = 0) -> str:
    """Return what the runs in a folder printed."""
    return (runs / f"log-{rank}.txt").read_text()


def damage_last(runs: Path) -> None:
    """Turn a bit of the largest tensor in the newest checkpoint of the newest run."""
    file = _newest(runs) / "checkpoints/last.ckpt"
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        weights = archive.read(largest)
    content = file.read_bytes()
    place = content.index(weights) + len(weights) // 2
    file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


def last(runs: Path, name: str = "last") -> dict[str, Any]:
    """Return a checkpoint of the newest run."""
    return torch.load(_newest(runs) / f"checkpoints/{name}.ckpt", weights_only=True)


def _newest(runs: Path) -> Path:
    run = newest_run(runs / "tiny")
    assert run is not None, f"no checkpoint in {runs}"
    return run


def curves(runs: Path) -> dict[str, dict[int, list[float]]]:
    """Return every value that was logged, by name and step, except for times."""
    events = EventAccumulator(str(_newest(runs)), {"scalars": 0}).Reload()
    names = [name for name in events.Tags()["scalars"] if not name.endswith(("images_per_s", "data_wait_share"))]
    found: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    for name in names:
        for event in events.Scalars(name):
            found[name].setdefault(event.step, []).append(event.value)
    return found


def csv_curves(runs: Path) -> dict[str, dict[int, list[float]]]:
    """Return every value in metrics.csv of the newest run, by name and step, except for times."""
    found: dict[str, dict[int, list[float]]] = {}
    (file,) = _newest(runs).rglob("metrics.csv")
    with open(file, newline="") as stream:
        for row in csv.DictReader(stream):
            for name, value in row.items():
                if value and name != "step" and not name.endswith(("images_per_s", "data_wait_share")):
                    found.setdefault(name, {}).setdefault(int(row["step"]), []).append(float(value))
    return found


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Return the places where two nested states differ, bit for bit."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if first.dtype == second.dtype and torch.equal(first, second) else [path]
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return [place for key in first for place in differences(first[key], second[key], f"{path}/{key}")]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [place for index, pair in pairs for place in differences(*pair, f"{path}/{index}")]
    return [] if first == second else [f"{path}: {str(first)[:80]} and {str(second)[:80]}"]


def assert_same_end(runs: Path, undisturbed: Path, curves: Callable[[Path], Any] = curves) -> None:
    """Compare weights, optimiser, schedule, loops and every logged value, as ``curves`` reads them, of two runs."""
    states = [last(folder) for folder in (runs, undisturbed)]
    for state in states:
        # A validation that a stopped run owed is counted otherwise; its scores are compared below.
        state["loops"]["fit_loop"].pop("epoch_loop.val_loop.batch_progress")
    callbacks = [state.pop("callbacks") for state in states]
    assert not differences(*states), differences(*states)
    own = [{key: value for key, value in each.items() if "Checkpoints" not in key} for each in callbacks]
    assert not differences(*own), differences(*own)
    assert read_scores(_newest(runs)) == read_scores(_newest(undisturbed)) != {}
    again, expected = curves(runs), curves(undisturbed)
    assert again.keys() == expected.keys(), again.keys() ^ expected.keys()
    for name, steps in expected.items():
        assert again[name].keys() == steps.keys(), f"{name} lacks {sorted(steps.keys() - again[name].keys())}"
        for step, values in steps.items():
            assert set(again[name][step]) == set(values), f"{name} at step {step}: {again[name][step]}, not {values}"


def assert_close_end(runs: Path, undisturbed: Path) -> None:
    """Compare weights, average, optimiser and every logged value of two runs that may round differently."""
    again, expected = last(runs), last(undisturbed)
    for part in ("state_dict", "ema_state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(again[part], expected[part], rtol=1e-4, atol=1e-7)
    # The ratio is estimated from a sample of the weights, and which ones those are depends on their division.
    names = {name: steps for name, steps in curves(undisturbed).items() if name != "train/update_ratio"}
    for name, steps in names.items():
        for step, values in steps.items():
            # A run that was killed has logged some steps twice.
            found = [value for value in curves(runs)[name][step] for _ in values]
            assert found == pytest.approx(values * (len(found) // len(values)), rel=1e-4), f"{name} at step {step}"
