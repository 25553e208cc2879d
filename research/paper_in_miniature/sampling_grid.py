"""Table 1, the flaw: the multi-step estimator with leading and trailing timesteps, few and many steps and members."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

from lightning_modules import DiffusionEstimator, Sampling, StableDiffusion
from lightning_modules.networks.sampling import Spacing
from lightning_modules.training.start import start_from
from research.paper_in_miniature.experiment import Experiment
from research.paper_in_miniature.networks import TINY_BASE
from research.paper_in_miniature.runs import Arm
from research.paper_in_miniature.settings import Settings, TaskName
from research.paper_in_miniature.stages import Job

SPACINGS: tuple[Spacing, ...] = ("leading", "trailing")
FIXED_SINGLE_STEP = Sampling(num_steps=1)
FLAWED_SINGLE_STEP = Sampling(num_steps=1, spacing="leading")
HEADLINES: dict[TaskName, str] = {"depth": "abs_rel", "normals": "mean_angle_deg"}
"""The error of each task; less is better."""


@dataclass(frozen=True)
class Cell:
    """One way of predicting, and the seeds that it is evaluated for.

    Attributes:
        task: depth or normals.
        sampling: spacing, steps and members.
        seeds: seeds of the estimators.
    """

    task: TaskName
    sampling: Sampling
    seeds: tuple[int, ...]

    @property
    def evaluations(self) -> int:
        """Evaluations of the UNet per image."""
        return self.sampling.num_steps * self.sampling.ensemble_size


def slow(settings: Settings) -> Sampling:
    """Return the ensemble that is evaluated for every seed and task."""
    return Sampling(num_steps=settings.slow_steps, ensemble_size=settings.ensemble_size)


def depth_ways(settings: Settings) -> list[Sampling]:
    """Return the ways of predicting of table 1."""
    return [
        Sampling(num_steps=steps, spacing=spacing, ensemble_size=members)
        for members, numbers in ((1, settings.grid_steps), (settings.ensemble_size, settings.ensemble_steps))
        for steps in numbers
        for spacing in SPACINGS
    ]


def cells(settings: Settings) -> list[Cell]:
    """Return all ways of predicting that are evaluated: cheap ones first, long ensembles last."""

    def seeds(sampling: Sampling) -> tuple[int, ...]:
        is_costly = sampling.ensemble_size > 1 or sampling.num_steps >= settings.costly_steps
        return settings.costly_seeds if is_costly and sampling != slow(settings) else settings.seeds

    ways = [
        ("depth", way)
        for way in depth_ways(settings)
        if (way.spacing, way.num_steps, way.ensemble_size) not in settings.left_out
    ]
    ways += [("normals", Sampling(num_steps=n, spacing=s)) for n in settings.normals_steps for s in SPACINGS]
    ways.append(("normals", slow(settings)))
    found = [Cell(task, sampling, seeds(sampling)) for task, sampling in ways]  # type: ignore[arg-type]
    return sorted((cell for cell in found if cell.seeds), key=lambda cell: cell.evaluations)


def scores(experiment: Experiment, cell: Cell) -> list[dict[str, float]]:
    """Return the metrics of a cell, one dictionary per seed."""
    return [experiment.score(Arm(cell.task, "diffusion"), seed, cell.sampling) for seed in cell.seeds]


def best_slow(experiment: Experiment, task: TaskName) -> tuple[Cell, list[dict[str, float]]]:
    """Return the cell of more than one evaluation with the smallest mean error, of those that have every seed.

    It is chosen on the evaluation set itself, which favours the multi-step estimator.
    """
    settings, headline = experiment.settings, HEADLINES[task]
    candidates = [
        (cell, scores(experiment, cell))
        for cell in cells(settings)
        if cell.task == task and cell.evaluations > 1 and cell.seeds == settings.seeds
    ]
    return min(candidates, key=lambda found: sum(metrics[headline] for metrics in found[1]))


def jobs(experiment: Experiment) -> Iterator[Job]:
    """Yield the evaluations one by one, those first that most of the claims need."""
    settings = experiment.settings

    def rank(cell: Cell) -> tuple[int, int]:
        needed = [cell.sampling.ensemble_size == 1, cell.sampling == slow(settings), True]
        return needed.index(True), cell.evaluations

    for cell in sorted(cells(settings), key=rank):
        for seed in cell.seeds:
            name = f"{cell.task} estimator, seed {seed}: {describe(cell.sampling)}"
            yield Job(name, partial(experiment.score, Arm(cell.task, "diffusion"), seed, cell.sampling))


def describe(sampling: Sampling) -> str:
    """Return a way of predicting in words."""
    return f"{sampling.spacing}, steps {sampling.num_steps}, members {sampling.ensemble_size}"


def times(experiment: Experiment) -> dict[str, dict[str, float]]:
    """Return the seconds that one image of the depth estimator takes, by way of predicting, measured in one run.

    Each way predicts the same image alone, ``timing_repeats`` times, all ways in turn, so that whatever else the
    machine does befalls all alike; the medians count. ``cpu_s`` is processor time of all threads, which does not grow
    when other programs want the processor; ``wall_s`` is what a clock shows; ``s`` is the former on a
    CPU and the latter on a GPU. Nothing is remembered from earlier predictions.
    """
    settings = experiment.settings
    seed = settings.seeds[0]
    run = experiment.run(Arm("depth", "diffusion"), seed)
    checkpoint = experiment.runs.checkpoint(run, experiment.estimator_run)
    ways = depth_ways(settings)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    depends_on = {
        "checkpoint": checkpoint.name,
        "ways": [describe(way) for way in ways],
        "repeats": settings.timing_repeats,
        "device": device,
    }
    found = experiment.runs.stages.json("times", depends_on, lambda: _measure(experiment, checkpoint, ways, device))
    clock = "cpu_s" if device == "cpu" else "wall_s"
    return {way: {**seconds, "s": seconds[clock]} for way, seconds in found.items()}


def _measure(
    experiment: Experiment, checkpoint: Path, ways: list[Sampling], device: str
) -> dict[str, dict[str, float]]:
    network = StableDiffusion(str(TINY_BASE), channels_last=True)
    estimator = DiffusionEstimator(network, Arm("depth", "diffusion").make_task())
    start_from(estimator, str(checkpoint))
    estimator.to(device).eval()
    data = experiment.runs.halls.evaluation()
    data.setup("validate")
    image = next(iter(data.val_dataloader()[0])).image[:1].to(device)

    estimator(image)  # what happens only once
    samples: dict[str, list[tuple[float, float]]] = {describe(way): [] for way in ways}
    for _ in range(experiment.settings.timing_repeats):
        for way in ways:
            estimator.sampling = way
            samples[describe(way)].append(seconds_of(lambda: estimator(image)))
    return {
        way: dict(zip(("wall_s", "cpu_s"), map(median, zip(*each, strict=True)), strict=True))
        for way, each in samples.items()
    }


def seconds_of(action: Callable[[], object]) -> tuple[float, float]:
    """Return (wall, processor) seconds of an action, to the end of what it started on a GPU."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu
