"""Trains and scores recipes, each result once."""

import json
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor
from torch.optim import AdamW

from lightning_modules.evaluation.scoring import Scorer, Tally
from lightning_modules.metrics.benchmarks.choice import MetricChoice
from lightning_modules.networks.noise import seed_from
from lightning_modules.single_step import SingleStepEstimator
from lightning_modules.single_task import choose
from research.paper_in_miniature.halls import Halls
from research.paper_in_miniature.runs import make_trainer
from research.paper_in_miniature.settings import FULL as PAPER
from research.paper_in_miniature.settings import QUICK as QUICK_PAPER
from research.paper_in_miniature.settings import DataSettings
from research.paper_in_miniature.stages import Stages
from research.recipes_in_miniature.recipes import RECIPES, Recipe

CHOICE = MetricChoice(("least_squares", "ransac_log"), ("soft_edges",))


@dataclass(frozen=True)
class Settings:
    """What results depend on, the same for all recipes.

    Attributes:
        data: which halls.
        steps: optimiser steps.
        batch_size: images per step.
        learning_rate: largest learning rate.
        warmup_steps: steps over which it rises.
        final_lr_ratio: share that is left at the end.
        seeds: of weights that are new, of noise and of the order of the data.
    """

    data: DataSettings = field(default_factory=DataSettings)
    steps: int = PAPER.fine_tuning.steps
    batch_size: int = PAPER.fine_tuning.batch_size
    learning_rate: float = 1e-3
    warmup_steps: int = PAPER.fine_tuning.warmup_steps
    final_lr_ratio: float = PAPER.final_lr_ratio
    seeds: tuple[int, ...] = PAPER.seeds


FULL = Settings()
QUICK = Settings(data=QUICK_PAPER.data, steps=2, warmup_steps=1, seeds=(0,))


class Comparison:
    """The recipes on the same halls.

    Args:
        settings: what results depend on.
        work: folder of all results; rendered scenes are kept beside it.
    """

    def __init__(self, settings: Settings, work: Path) -> None:
        self.settings, self.stages = settings, Stages(work / "stages")
        self.halls = Halls(work.parent / "data", settings.data, self.stages)
        self._latents: dict[bytes, Tensor] = {}

    def score(self, recipe: Recipe, seed: int) -> dict[str, float]:
        """Return the metrics of a recipe and a seed, trained and scored if need be.

        Args:
            recipe: the recipe.
            seed: one of the settings' seeds.
        """
        return self.stages.json(
            f"{recipe.name} seed {seed}", self._key(recipe, seed), lambda: self._evaluate(self._train(recipe, seed))
        )

    def found(self) -> dict[str, list[dict[str, float]]]:
        """Return the metrics that are there, by recipe, one mapping a seed; nothing is computed."""
        scores: dict[str, list[dict[str, float]]] = {recipe.name: [] for recipe in RECIPES}
        for recipe in RECIPES:
            for seed in self.settings.seeds:
                wanted = json.loads(json.dumps(self._key(recipe, seed)))
                for file in self.stages.folder.glob(f"{recipe.name}-seed-{seed}-*.json"):
                    content = json.loads(file.read_text())
                    if content["depends_on"] == wanted:
                        scores[recipe.name].append(content["result"])
        return scores

    def _key(self, recipe: Recipe, seed: int) -> dict[str, Any]:
        settings = asdict(self.settings) | {"seeds": None}
        return {"recipe": recipe.name, "seed": seed, "network": str(recipe.network), **settings}

    def _train(self, recipe: Recipe, seed: int) -> SingleStepEstimator:
        seed_everything(seed, verbose=False)
        settings = self.settings
        estimator = recipe.build(
            self._latents,
            optimizer=partial(AdamW, lr=settings.learning_rate, fused=True),
            warmup_steps=settings.warmup_steps,
            final_lr_ratio=settings.final_lr_ratio,
        )
        trainer = make_trainer([], max_steps=settings.steps, limit_val_batches=0)
        trainer.fit(estimator, datamodule=self.halls.training(seed, settings.batch_size))
        return estimator.eval()

    @torch.no_grad()
    def _evaluate(self, estimator: SingleStepEstimator) -> dict[str, float]:
        """Return all metrics on the evaluation halls, of all modalities."""
        data = self.halls.evaluation()
        data.setup("validate")
        (info,) = data.val_dataset_infos
        (loader,) = data.val_dataloader()
        singles = choose(estimator)
        tallies = [Tally() for _ in singles]
        scorers = [Scorer(single.task, info, CHOICE) for single in singles]
        for batch in loader:
            for single, scorer, tally in zip(singles, scorers, tallies, strict=True):
                prediction = single(batch.image, [seed_from(key) for key in batch.key])
                for index in range(len(batch)):
                    place = slice(index, index + 1)
                    scorer.score(tally, prediction[place], batch[place])
        found: dict[str, float] = {}
        for scorer, tally in zip(scorers, tallies, strict=True):
            found |= {name.replace("/", "_"): value for name, value in scorer.overall(tally).items()}
        return found
