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

from geometry.alignment import align_scale_shift
from geometry.batch import GeometryBatch
from geometry.modalities import Depth as DepthModality
from geometry.modalities import Modality
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
from research.recipes_in_miniature.bases import BASES, BaseName
from research.recipes_in_miniature.recipes import Recipe, recipes_of

CHOICE = MetricChoice(("least_squares", "ransac_log"), ("soft_edges",))


@dataclass(frozen=True)
class Settings:
    """What results depend on, the same for all recipes.

    Attributes:
        base: what they start from.
        data: which halls.
        steps: optimiser steps.
        batch_size: images per step.
        learning_rate: largest learning rate.
        warmup_steps: steps over which it rises.
        final_lr_ratio: share that is left at the end.
        evaluation_halls: how many halls each is scored on.
        seeds: of weights that are new, of noise and of the order of the data.
    """

    base: BaseName = "unet"
    data: DataSettings = field(default_factory=DataSettings)
    steps: int = BASES["unet"].steps
    batch_size: int = 4
    learning_rate: float = BASES["unet"].learning_rate
    warmup_steps: int = PAPER.fine_tuning.warmup_steps
    final_lr_ratio: float = PAPER.final_lr_ratio
    evaluation_halls: int = 100
    seeds: tuple[int, ...] = PAPER.seeds


def settings_of(base: BaseName, quick: bool = False) -> Settings:
    """Return the settings of a base, or those that show in minutes whether everything works.

    Args:
        base: what recipes start from.
        quick: whether little is trained, and with one seed.
    """
    learning_rate = BASES[base].learning_rate
    if quick:
        return Settings(base, QUICK_PAPER.data, steps=2, learning_rate=learning_rate, warmup_steps=1, seeds=(0,))
    return Settings(base, steps=BASES[base].steps, learning_rate=learning_rate)


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
        """Return the metrics that are there, by recipe, one mapping a seed, whatever the seed; nothing is computed."""
        scores: dict[str, list[dict[str, float]]] = {}
        for recipe in recipes_of(self.settings.base):
            files = [json.loads(file.read_text()) for file in self.stages.folder.glob(f"{recipe.name}-seed-*.json")]
            seeds = {file["depends_on"]["seed"]: file for file in files}
            keys = {seed: json.loads(json.dumps(self._key(recipe, seed))) for seed in seeds}
            scores[recipe.name] = [
                file["result"]
                for file in sorted(files, key=lambda file: file["depends_on"]["seed"])
                if file["depends_on"] == keys[file["depends_on"]["seed"]]
            ]
        return scores

    def _key(self, recipe: Recipe, seed: int) -> dict[str, Any]:
        settings = asdict(self.settings) | {"seeds": None}
        network = str(recipe.networks[self.settings.base])
        return {"recipe": recipe.name, "text": recipe.text, "seed": seed, "network": network, **settings}

    def _train(self, recipe: Recipe, seed: int) -> SingleStepEstimator:
        seed_everything(seed, verbose=False)
        settings = self.settings
        estimator = recipe.build(
            settings.base,
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
        data = self.halls.evaluation(self.settings.evaluation_halls)
        data.setup("validate")
        (info,) = data.val_dataset_infos
        (loader,) = data.val_dataloader()
        singles = choose(estimator)
        tallies = [Tally() for _ in singles]
        scorers = [Scorer(single.task, info, CHOICE) for single in singles]
        upside_down: list[Tensor] = []
        for batch in loader:
            for single, scorer, tally in zip(singles, scorers, tallies, strict=True):
                prediction = single(batch.image, [seed_from(key) for key in batch.key])
                upside_down += _upside_down(single.task.modality, prediction, batch)
                for index in range(len(batch)):
                    place = slice(index, index + 1)
                    scorer.score(tally, prediction[place], batch[place])
        found: dict[str, float] = {}
        for scorer, tally in zip(scorers, tallies, strict=True):
            found |= {name.replace("/", "_"): value for name, value in scorer.overall(tally).items()}
        if upside_down:
            found["upside_down_share"] = float(torch.stack(upside_down).double().mean())
        return found


def _upside_down(modality: Modality, prediction: Tensor, batch: GeometryBatch) -> list[Tensor]:
    """Return for each image whether far is predicted to be near: the best scale is negative; nothing but for depth."""
    if not isinstance(modality, DepthModality):
        return []
    truth = modality.parameterization.of_target(batch.targets[modality.name])
    scale, _ = align_scale_shift(prediction, *truth)
    return list(scale < 0)
