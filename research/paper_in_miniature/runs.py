"""Training runs: what is trained, from where and how, each kept as a checkpoint."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from torch import Tensor
from torch.optim import AdamW

from lightning_modules import Depth, DiffusionEstimator, Normals, Sampling, SingleStepEstimator, Task
from lightning_modules.estimator import Estimator
from lightning_modules.losses import ScaleShiftInvariantLoss
from lightning_modules.networks.noise import NoiseKind
from lightning_modules.networks.stable_diffusion import PromptLength
from lightning_modules.training.ema import ExponentialMovingAverage
from lightning_modules.training.progress import StepProgress
from research.paper_in_miniature.halls import NAME, Halls
from research.paper_in_miniature.networks import TINY_BASE, RememberingStableDiffusion, write_random_base
from research.paper_in_miniature.settings import Budget, Settings, TaskName
from research.paper_in_miniature.stages import Stages

Start = Literal["base", "random", "estimator"]
START_NAMES: dict[Start, str] = {
    "estimator": "the estimator",
    "base": "the tiny base",
    "random": "random UNet weights",
}


@dataclass(frozen=True)
class Arm:
    """What is trained, apart from seed, budget and learning rate.

    Attributes:
        task: depth or normals.
        method: the multi-step estimator, or a single step end to end.
        start: the tiny base, the base with random UNet weights, or the multi-step estimator of the same task and seed.
        noise: what the single step is fed beside the image.
        prompt_length: tokens of the empty prompt.
        halve_bias: halve the bias of the widened first layer.
        positive_scale: option of the depth loss.
        normalize_target: option of the depth loss.
    """

    task: TaskName
    method: Literal["diffusion", "single_step"] = "single_step"
    start: Start = "base"
    noise: NoiseKind = "zeros"
    prompt_length: PromptLength = "short"
    halve_bias: bool = False
    positive_scale: bool = False
    normalize_target: bool = False

    def make_task(self) -> Task:
        """Return the task with its loss."""
        if self.task == "normals":
            return Normals()
        return Depth(ScaleShiftInvariantLoss(self.positive_scale, self.normalize_target))


@dataclass(frozen=True)
class Run:
    """An arm with all that its weights depend on.

    Attributes:
        arm: what is trained.
        seed: seed of noise, of the order of the data and of random weights.
        learning_rate: largest learning rate.
        steps: optimiser steps.
        start_seed: seed of the estimator that it starts from, if it does.
        average: keep an average of the weights in the checkpoint, too.
    """

    arm: Arm
    seed: int
    learning_rate: float
    steps: int
    start_seed: int
    average: bool = False

    @property
    def name(self) -> str:
        """What it is, for people."""
        arm = self.arm
        if arm.method == "diffusion":
            words = [arm.task, "estimator"]
        else:
            words = [arm.task, "E2E from", arm.start, arm.noise]
        return " ".join([*words, f"lr {self.learning_rate:g} seed {self.seed}"])


class Runs:
    """Trains runs and scores them.

    Args:
        settings: everything that results depend on.
        stages: where results are kept.
        halls: the data.
        threads: processor threads.
    """

    def __init__(self, settings: Settings, stages: Stages, halls: Halls) -> None:
        self.settings, self.stages, self.halls = settings, stages, halls
        self._latents: dict[bytes, Tensor] = {}

    def budget(self, arm: Arm) -> Budget:
        """Return the budget of an arm; it is the same for all end-to-end arms."""
        return self.settings.diffusion if arm.method == "diffusion" else self.settings.fine_tuning

    def checkpoint(self, run: Run, estimator_run: Callable[[TaskName, int], Run]) -> Path:
        """Return the checkpoint of a run, trained if it is not there.

        Args:
            run: what to train.
            estimator_run: the run of the multi-step estimator for a task and a seed, to start from.
        """
        start: Path | None = None
        if run.arm.start == "estimator":
            start = self.checkpoint(estimator_run(run.arm.task, run.start_seed), estimator_run)
        return self.stages.file(run.name, self._key(run, start), ".ckpt", lambda path: self._train(run, start, path))

    def score(
        self,
        run: Run,
        checkpoint: Path,
        data: LightningDataModule,
        data_name: str,
        sampling: Sampling | None = None,
        average: bool = False,
    ) -> dict[str, float]:
        """Return the metrics of a checkpoint, computed if they are not there.

        Args:
            run: what was trained.
            checkpoint: its checkpoint.
            data: data module whose validation set is judged on.
            data_name: its name.
            sampling: how a multi-step estimator predicts.
            average: judge the average of the weights.
        """
        how = {} if sampling is None else asdict(sampling)
        key = {"checkpoint": checkpoint.name, "arm": asdict(run.arm), "data": data_name}
        key |= asdict(self.settings.data) | how
        kind = f"{sampling.spacing} {sampling.num_steps}x{sampling.ensemble_size}" if sampling else ""
        name = f"score {run.name} {data_name} {kind} {'average' if average else ''}".strip()
        return self.stages.json(
            name, key | {"average": average}, lambda: self._validate(run, checkpoint, data, sampling, average)
        )

    def build(self, run: Run, sampling: Sampling | None = None, init_from: Path | None = None) -> Estimator:
        """Return the estimator of a run.

        Args:
            run: what to train, or what was trained.
            sampling: how a multi-step estimator predicts.
            init_from: checkpoint to start from.
        """
        arm, settings = run.arm, self.settings
        network = RememberingStableDiffusion(
            self._latents,
            base=str(self._base(run)),
            noise=arm.noise,
            prompt_length=arm.prompt_length,
            halve_bias=arm.halve_bias,
            channels_last=True,
        )
        options: dict[str, Any] = {
            "optimizer": partial(AdamW, lr=run.learning_rate, fused=True),
            "warmup_steps": self.budget(arm).warmup_steps,
            "final_lr_ratio": settings.final_lr_ratio,
            "init_from": None if init_from is None else str(init_from),
        }
        if arm.method == "diffusion":
            return DiffusionEstimator(network, arm.make_task(), sampling or Sampling(), **options)
        return SingleStepEstimator(network, arm.make_task(), **options)

    def _base(self, run: Run) -> Path:
        if run.arm.start != "random":
            return TINY_BASE
        return self.stages.file(
            f"random base {run.seed}", {"seed": run.seed}, "", lambda folder: write_random_base(folder, run.seed)
        )

    def _key(self, run: Run, start: Path | None) -> dict[str, Any]:
        data, budget = self.settings.data, self.budget(run.arm)
        return {
            **asdict(run),
            "start_from": start and start.name,
            "data": [data.training_rooms, data.training_seed],
            "batch_size": budget.batch_size,
            "warmup_steps": budget.warmup_steps,
            "final_lr_ratio": self.settings.final_lr_ratio,
            "ema_decay": self.settings.ema_decay if run.average else None,
        }

    def _train(self, run: Run, start: Path | None, path: Path) -> None:
        seed_everything(run.seed, verbose=False)
        estimator = self.build(run, init_from=start)
        ema = ExponentialMovingAverage(self.settings.ema_decay if run.average else None)
        trainer = make_trainer([ema, StepProgress()], max_steps=run.steps, limit_val_batches=0)
        trainer.fit(estimator, datamodule=self.halls.training(run.seed, self.budget(run.arm).batch_size))
        # The whole checkpoint holds the average, and optimiser states of twice the size of the weights.
        trainer.save_checkpoint(path, weights_only=not run.average)

    def _validate(
        self, run: Run, checkpoint: Path, data: LightningDataModule, sampling: Sampling | None, average: bool
    ) -> dict[str, float]:
        seed_everything(run.seed, verbose=False)
        ema = ExponentialMovingAverage(self.settings.ema_decay if average else None)
        trainer = make_trainer([ema, StepProgress()])
        estimator = self.build(run, sampling)
        (metrics,) = trainer.validate(
            estimator, datamodule=data, ckpt_path=str(checkpoint), verbose=False, weights_only=True
        )
        return {name.removeprefix(f"val/{NAME}/"): value for name, value in cast(dict[str, float], metrics).items()}


def make_trainer(callbacks: list[Any], **options: Any) -> Trainer:  # noqa: ANN401
    """Return a trainer that says and keeps nothing by itself.

    Args:
        callbacks: what goes on beside the steps.
        **options: further ones of the trainer.
    """
    accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    return Trainer(
        accelerator=accelerator,
        devices=1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )
