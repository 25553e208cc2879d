"""Give every option of every command a wrong value of the right type, once, and look at how the command ends.

The options are read from the parsers and from the signatures of the classes that configurations name, so that none is
forgotten. Every case runs in a fork of this process. Right is status 2 with one line, or an end without an error;
values that were taken are listed with the command's last line, for a person to judge. Wrong is a traceback, a hang, or
a message of several lines:

    python -m benchmarks.wrong_options --out /tmp/wrong_options
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
import traceback
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

import train
from benchmarks.wrong_options.values import NUMBERS, RENDERED, Material, options_of, wrong_values
from datamodules import Benchmarks, GeometryDataModule
from geometry.command_line import Command
from lightning_modules import losses, metrics, single_step, tasks
from lightning_modules.command_line.trainer_commands import OneStepCLI
from lightning_modules.diffusion import DiffusionEstimator
from lightning_modules.evaluation.callback import Evaluation
from lightning_modules.networks.compilation import Compilation
from lightning_modules.networks.lora import LoRA
from lightning_modules.networks.sampling import Sampling
from lightning_modules.networks.stable_diffusion.network import StableDiffusion
from lightning_modules.training.callbacks import ValidationPanels
from lightning_modules.training.checkpoints import Checkpoints
from lightning_modules.training.ema import ExponentialMovingAverage

TIMEOUT_S = 60.0
# A run that these make endless, or that waits for other machines, is what they ask for.
_ENDLESS = ("--trainer.max_steps=-1", "--trainer.max_steps=1000000000000", "--trainer.min_steps=1000000000000")
# What no value of these options can be wrong about, or what is tested by other means.
_PASSED_OVER = {"help", "config", "print_config", "overwrite", "quiet", "private"}
# Options that are text and name a file or folder.
_PATHS = {"run", "ckpt_path", "pretrained", "run_config", "base", "normals", "images", "runs", "shards"}
# serve is left out: what it takes, it serves until it is stopped.
COMMANDS = (
    *("fit", "validate", "test", "predict", "export", "compare", "plan", "conditioning"),
    *("prepare hypersim", "prepare virtual_kitti", "prepare irs", "prepare tartanair", "prepare unreal_stereo_4k"),
    *("prepare urbansyn", "prepare folder", "prepare merge", "prepare check", "prepare preview"),
    *("synthesize hypersim", "synthesize virtual_kitti"),
)


@dataclass(frozen=True)
class Case:
    """One command line: what it is called, the words, and the program that gets them."""

    name: str
    words: tuple[str, ...]
    program: Callable[[list[str]], Any]


@dataclass(frozen=True)
class End:
    """How a case ended: its status (None for a hang), and what was printed."""

    status: int | None
    printed: str

    @property
    def verdict(self) -> str:
        """refused, taken or WRONG."""
        errors = [line for line in self.printed.splitlines() if line.startswith("error: ") or ": error: " in line]
        if self.status == 0 and "Traceback" not in self.printed:
            return "taken"
        is_refused = self.status in (1, 2) and "Traceback" not in self.printed and len(errors) <= 1
        return "refused" if is_refused and (errors or self.status == 1) else "WRONG"


def training_cases(command: str, material: Material) -> Iterator[Case]:
    """Return cases of fit, validate or test.

    Args:
        command: its name.
        material: small data.
    """
    own = [command, f"--config={material.config}"]
    if command != "fit":
        own.append(f"--ckpt_path={material.run}/checkpoints/last.ckpt")
    with_weights = own
    if command == "test":
        data = ["--data=datamodules.Benchmarks", f"--data.root={material.folder}/benchmarks", "--data.num_workers=0"]
        with_weights = [*own, *data]
        # Images of benchmarks are large: predicting them anew would take most of the time.
        saved = ["--model=lightning_modules.SavedPredictions", f"--model.init_args.folder={material.predictions}"]
        own = [*own[:2], *saved, "--model.init_args.task=lightning_modules.Depth", *data]
    for owner, prefix, *needed in _SECTIONS["all"] + _SECTIONS.get(command, []):
        for name, value in options_of(owner, prefix, material):
            yield Case(f"{command} {name}", (*own, *needed, f"--{name}={value}"), train.main)
    for name in ("seed_everything", "name", "tf32", "attention"):
        for value in (*NUMBERS, "", "wrong", "a/../b"):
            yield Case(f"{command} {name}", (*own, f"--{name}={value}"), train.main)
    for name in ("ckpt_path", "config"):
        for value in material.paths():
            yield Case(f"{command} {name}", (*with_weights, f"--{name}={value}"), train.main)


# The classes whose arguments are options, where they stand, and the options that put them there.
_LOSS, _METRICS, _NETWORK = "model.task.init_args.loss", "model.task.init_args.metrics", "model.network"
_DIFFUSION = "--model=lightning_modules.DiffusionEstimator"
_SECTIONS: dict[str, list[tuple[Any, ...]]] = {
    "all": [(Trainer, "trainer"), (ExponentialMovingAverage, "ema")],
    "fit": [
        (single_step.SingleStepEstimator, "model"),
        (StableDiffusion, _NETWORK),
        (Compilation, f"{_NETWORK}.compile"),
        (LoRA, f"{_NETWORK}.lora"),
        (Checkpoints, "checkpoints"),
        (ValidationPanels, "panels"),
        (tasks.Depth, "model.task.init_args"),
        (GeometryDataModule, "data"),
        (losses.ScaleShiftInvariantLoss, _LOSS, f"--{_LOSS}=lightning_modules.losses.ScaleShiftInvariantLoss"),
        (metrics.AffineInvariantDepth, _METRICS, f"--{_METRICS}+=lightning_modules.metrics.AffineInvariantDepth"),
        (DiffusionEstimator, "model", _DIFFUSION),
        (Sampling, "model.sampling", _DIFFUSION),
    ],
    "test": [(Benchmarks, "data"), (Evaluation, "evaluation")],
}


def command_cases(name: str, command: Command, own: list[str], material: Material) -> Iterator[Case]:
    """Return cases of a command without a trainer.

    Args:
        name: its words, for instance ``prepare folder``.
        command: the command.
        own: words that make a right command; ``<images>`` stands for a value of the positional option ``images``.
        material: small data.
    """
    right = {"<images>": str(material.photo)}
    for option in command.part.options:
        if option.name in _PASSED_OVER or option.num_words == 0:
            continue
        arguments = typing.get_args(option.hint)
        hint = arguments[0] if option.is_sequence else option.hint
        values = wrong_values(hint, option.name, material)
        if hint is str and option.name in _PATHS:
            values += material.paths()
        if option.name == "part":
            values = ["0/0", "3/2", "x", "1/99999999999"]
        for value in values:
            words = [value] * (option.num_words if isinstance(option.num_words, int) else 1)
            if option.is_positional:
                given = [value if word == f"<{option.name}>" else word for word in own]
            else:
                given = [*(right.get(word, word) for word in own), f"--{option.name}", *words]
            yield Case(f"{name} {option.name}", (*name.split(), *given), train.main)


def all_cases(material: Material, commands: list[str]) -> Iterator[Case]:
    """Return all cases of some commands, one by one, as their output folders must be new."""
    folder, model = material.folder, ["--ckpt_path", str(material.run)]
    out = ["--output", "OUT"]
    raw = [*out, "--workers", "1", "--raw"]
    scenes = [*out, "--workers", "1", "--frames", "2", "--size", "16", "32"]
    own = {
        "predict": ["<images>", *model, *out, "--processing_res", "32"],
        "export": [*model, *out],
        "compare": ["<runs>", str(material.run)],
        "plan": ["--run_config", "demo", "--gpu", "24GB", "--image_size", "32", "32"],
        "conditioning": ["--base", "checkpoints/tiny-stable-diffusion", "--output", "OUT.safetensors"],
        "prepare hypersim": [*raw, f"{folder}/hypersim", "--size", "48", "64"],
        "prepare virtual_kitti": [*raw, f"{folder}/virtual_kitti", "--crop", "40", "96"],
        **{f"prepare {name}": [*raw, f"{folder}/{name}"] for name in RENDERED},
        "prepare folder": [*raw[:-1], "--images", f"{folder}/own/rgb", "--depth", f"{folder}/own/depth"],
        "prepare merge": ["<folders>"],
        "prepare check": ["<shards>"],
        "prepare preview": [f"{folder}/data/a", "--output", "OUT/x.png"],
        "synthesize hypersim": scenes,
        "synthesize virtual_kitti": scenes,
    }
    own["prepare folder"] += ["--depth_scale", "1000"]
    for name in commands:
        if name in OneStepCLI.subcommands():
            yield from training_cases(name, material)
        first, _, second = name.partition(" ")
        if name in own:
            found = train.find_command(train.COMMANDS[first][0])
            yield from command_cases(name, found.commands()[second] if second else found, own[name], material)


def run(case: Case, folder: Path, timeout_s: float = TIMEOUT_S) -> End:
    """Run a case in a fork of this process.

    Args:
        case: the case.
        folder: an empty one, for what it writes.
        timeout_s: how long it may take.
    """
    log = folder.with_suffix(".log")
    child = os.fork()
    if child == 0:
        os.setsid()
        _run_here(case, folder, log)
    latest_s = time.monotonic() + timeout_s
    status = None
    while status is None and time.monotonic() < latest_s:
        done, code = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else None
        time.sleep(0.02)
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return End(status, log.read_text(errors="replace"))


def _run_here(case: Case, folder: Path, log: Path) -> None:
    file = open(log, "w", buffering=1)
    for number in (1, 2):
        os.dup2(file.fileno(), number)
    sys.stdout = sys.stderr = file
    os.chdir(folder)
    status: Any = 0
    try:
        status = case.program([word.replace("OUT", str(folder / "out")) for word in case.words]) or 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 99
    file.flush()
    os._exit(status if isinstance(status, int) else 98)


def main() -> None:
    """Run all cases of the commands that are asked for; status 1 if one ended wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", default=COMMANDS, choices=COMMANDS, help="Which commands.")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="Seconds that a case may take.")
    parser.add_argument("--only", default="", help="Only cases whose name has this in it.")
    parser.add_argument("--out", type=Path, required=True, help="Folder of material and logs; it must be new.")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    material = Material(options.out.absolute() / "material")
    counts = dict.fromkeys(("refused", "taken", "WRONG"), 0)
    for number, case in enumerate(all_cases(material, options.commands)):
        if options.only not in case.name or case.words[-1] in _ENDLESS:
            continue
        folder = options.out.absolute() / f"case-{number}"
        folder.mkdir()
        end = run(case, folder, options.timeout)
        counts[end.verdict] += 1
        told = next((line for line in end.printed.splitlines()[::-1] if line.strip()), "")
        print(f"{end.verdict:8}{case.name} {case.words[-1][-60:]!r}: status {end.status}: {told[-300:]}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(counts))
    raise SystemExit(bool(counts["WRONG"]))


if __name__ == "__main__":
    main()
