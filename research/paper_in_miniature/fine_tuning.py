"""Table 2, fine-tuning: the estimator, and end-to-end training from three starts and with three kinds of noise."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from lightning_modules.networks.noise import NoiseKind
from research.paper_in_miniature.experiment import Experiment
from research.paper_in_miniature.runs import START_NAMES, Arm
from research.paper_in_miniature.sampling_grid import FIXED_SINGLE_STEP, FLAWED_SINGLE_STEP, best_slow, describe
from research.paper_in_miniature.settings import TASKS, TaskName
from research.paper_in_miniature.stages import Job

NOISES: tuple[NoiseKind, ...] = ("zeros", "gaussian", "pyramid")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        key: short name, by which the claims find it.
        text: what it is, for people.
        scores: metrics, one dictionary per seed.
        evaluations: evaluations of the UNet per image.
    """

    key: str
    text: str
    scores: list[dict[str, float]]
    evaluations: int = 1


def arms(task: TaskName) -> dict[str, Arm]:
    """Return the end-to-end arms of a task by the keys of their rows."""
    found = {f"e2e {start}": Arm(task, start=start) for start in START_NAMES}
    for noise in NOISES[1:]:
        found[f"e2e estimator {noise}"] = Arm(task, start="estimator", noise=noise)
    return found


def jobs(experiment: Experiment) -> Iterator[Job]:
    """Yield the trainings and evaluations one by one."""
    for task in TASKS:
        for seed in experiment.settings.seeds:
            for key, arm in arms(task).items():
                yield Job(f"{task}, {key}, seed {seed}", partial(experiment.score, arm, seed))
            yield Job(f"{task}, e2e base for longer, seed {seed}", partial(_score_longer, experiment, task, seed))


def rows(experiment: Experiment, task: TaskName) -> list[Row]:
    """Return the lines of a task's table."""
    seeds, estimator = experiment.settings.seeds, Arm(task, "diffusion")
    cell, slow_scores = best_slow(experiment, task)
    found = [Row("slow", f"estimator, best slow ({describe(cell.sampling)})", slow_scores, cell.evaluations)]
    for key, text, sampling in (
        ("leading", "estimator, flawed single step (leading)", FLAWED_SINGLE_STEP),
        ("trailing", "estimator, fixed single step (trailing)", FIXED_SINGLE_STEP),
    ):
        found.append(Row(key, text, [experiment.score(estimator, seed, sampling) for seed in seeds]))
    for key, arm in arms(task).items():
        text = f"E2E from {START_NAMES[arm.start]}, {arm.noise}"
        found.append(Row(key, text, [experiment.score(arm, seed) for seed in seeds]))
    settings = experiment.settings
    text = (
        f"E2E from {START_NAMES['base']}, zeros, {settings.long_steps} steps in place of {settings.fine_tuning.steps}"
    )
    return [*found, Row("e2e base longer", text, [_score_longer(experiment, task, seed) for seed in seeds])]


def _score_longer(experiment: Experiment, task: TaskName, seed: int) -> dict[str, float]:
    """Score a run from the base that is given the training time of the estimator on top of its own."""
    return experiment.score(Arm(task), seed, steps=experiment.settings.long_steps)
