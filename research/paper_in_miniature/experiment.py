"""Which runs the tables are made of, at which learning rates, and how they score."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import get_args

from lightning_modules import Sampling
from lightning_modules.networks.stable_diffusion import PromptLength
from research.paper_in_miniature.runs import START_NAMES, Arm, Run, Runs, Start
from research.paper_in_miniature.settings import TASKS, TaskName
from research.paper_in_miniature.stages import Job

SWEEP_SAMPLING = Sampling(num_steps=4)
DIFFUSION_DEPTH = Arm("depth", "diffusion")


class Experiment:
    """The runs of the miniature by arm and seed, with one learning rate per kind of training.

    Learning rates are chosen on depth, with a seed of their own, on halls that are neither trained on nor part of the
    evaluation; normals take the same. All end-to-end arms share one, the best on average over the three starts.

    Args:
        runs: trains and scores.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs, self.settings = runs, runs.settings

    def score(
        self,
        arm: Arm,
        seed: int,
        sampling: Sampling | None = None,
        average: bool = False,
        prompt_length: PromptLength | None = None,
        steps: int | None = None,
    ) -> dict[str, float]:
        """Return the metrics of an arm on the evaluation set, trained and evaluated if need be.

        Args:
            arm: what is trained.
            seed: one of the settings' seeds.
            sampling: how a multi-step estimator predicts.
            average: judge the average of the weights in place of the last ones.
            prompt_length: tokens of the empty prompt in the evaluation; by default those of the training.
            steps: optimiser steps; by default those of the budget.
        """
        run = self.run(arm, seed)
        run = run if steps is None else replace(run, steps=steps)
        checkpoint = self.runs.checkpoint(run, self.estimator_run)
        if prompt_length is not None:
            run = replace(run, arm=replace(arm, prompt_length=prompt_length))
        return self.runs.score(run, checkpoint, self.runs.halls.evaluation(), "evaluation", sampling, average)

    def run(self, arm: Arm, seed: int) -> Run:
        """Return the run of an arm and a seed, at the learning rate that the sweep chose."""
        if arm.method == "diffusion":
            return self.estimator_run(arm.task, seed)
        rate = best_rate(self.fine_tuning_sweep())
        # One training serves for the weights and for their average.
        return Run(arm, seed, rate, self.settings.fine_tuning.steps, seed, average=arm == Arm("depth"))

    def estimator_run(self, task: TaskName, seed: int) -> Run:
        """Return the run of a task's multi-step estimator."""
        rate = best_rate(self.diffusion_sweep())
        return Run(Arm(task, "diffusion"), seed, rate, self.settings.diffusion.steps, seed)

    def diffusion_sweep(self) -> dict[float, dict[str, float]]:
        """Return AbsRel on the selection halls by learning rate, for short runs of the multi-step estimator."""
        budget = self.settings.diffusion
        return {
            rate: {"estimator": self._selection_score(DIFFUSION_DEPTH, rate, budget.sweep_steps, SWEEP_SAMPLING)}
            if len(budget.learning_rates) > 1
            else {}
            for rate in budget.learning_rates
        }

    def fine_tuning_sweep(self) -> dict[float, dict[str, float]]:
        """Return AbsRel on the selection halls by learning rate and start, for end-to-end runs."""
        budget = self.settings.fine_tuning
        starts: tuple[Start, ...] = get_args(Start) if len(budget.learning_rates) > 1 else ()
        return {
            rate: {
                start: self._selection_score(Arm("depth", start=start), rate, budget.sweep_steps) for start in starts
            }
            for rate in budget.learning_rates
        }

    def jobs(self) -> Iterator[Job]:
        """Yield the trainings that all else waits for: multi-step estimators, before and after them the sweeps."""
        settings, diffusion, tuning = self.settings, self.settings.diffusion, self.settings.fine_tuning
        for rate in diffusion.learning_rates if len(diffusion.learning_rates) > 1 else ():
            sweep = partial(self._selection_score, DIFFUSION_DEPTH, rate, diffusion.sweep_steps, SWEEP_SAMPLING)
            yield Job(f"learning rate {rate:g} of the estimator", sweep)
        for seed in settings.seeds:
            for task in TASKS:
                yield Job(f"{task} estimator, seed {seed}", partial(self._train_estimator, task, seed))
        for rate in tuning.learning_rates if len(tuning.learning_rates) > 1 else ():
            for start, name in START_NAMES.items():
                sweep = partial(self._selection_score, Arm("depth", start=start), rate, tuning.sweep_steps)
                yield Job(f"learning rate {rate:g} from {name}", sweep)

    def _train_estimator(self, task: TaskName, seed: int) -> None:
        self.runs.checkpoint(self.estimator_run(task, seed), self.estimator_run)

    def _selection_score(self, arm: Arm, rate: float, steps: int, sampling: Sampling | None = None) -> float:
        run = Run(arm, self.settings.sweep_seed, rate, steps, self.settings.seeds[0])
        checkpoint = self.runs.checkpoint(run, self.estimator_run)
        return self.runs.score(run, checkpoint, self.runs.halls.selection(), "selection", sampling)["abs_rel"]


def best_rate(sweep: dict[float, dict[str, float]]) -> float:
    """Return the learning rate with the smallest mean error over what was tried with it.

    Args:
        sweep: errors by learning rate; a single rate needs none.
    """
    return min(sweep, key=lambda rate: fmean(sweep[rate].values() or [0.0]))
