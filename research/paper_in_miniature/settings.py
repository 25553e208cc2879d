"""All numbers that the miniature depends on, in two sizes: the full one and a quick one for CI."""

from dataclasses import dataclass, field
from typing import Literal

from lightning_modules.networks.sampling import Spacing

TaskName = Literal["depth", "normals"]
TASKS: tuple[TaskName, ...] = ("depth", "normals")


@dataclass(frozen=True)
class Budget:
    """What a training run may cost, and the learning rates to choose from.

    Attributes:
        steps: optimiser steps.
        batch_size: images per step.
        warmup_steps: steps over which the learning rate rises.
        learning_rates: candidates of the sweep.
        sweep_steps: optimiser steps of each run of the sweep.
    """

    steps: int
    batch_size: int
    warmup_steps: int
    learning_rates: tuple[float, ...]
    sweep_steps: int


@dataclass(frozen=True)
class DataSettings:
    """Which halls are used.

    Attributes:
        training_rooms: rooms rendered for training; a tenth of them is kept back, to choose learning rates on.
        training_seed: their seed.
        evaluation_rooms: rooms rendered for evaluation; nine tenths of them are used.
        evaluation_seed: their seed. 0 and 1 are those of the tiny base.
    """

    training_rooms: int = 1100
    training_seed: int = 20
    evaluation_rooms: int = 333
    evaluation_seed: int = 21


@dataclass(frozen=True)
class Settings:
    """Everything that results depend on.

    Attributes:
        data: which halls.
        diffusion: budget of the multi-step estimators.
        fine_tuning: budget of every end-to-end run, whatever it starts from.
        long_steps: optimiser steps of the runs from the tiny base that are given the estimator's training time, too;
            one end-to-end step of 8 images takes 1.6 times as long as one of the estimator's, of 16.
        seeds: seeds of weights, noise and order of the data.
        sweep_seed: seed of the sweeps of learning rates, none of ``seeds``.
        grid_steps: numbers of denoising steps in table 1.
        ensemble_size: members of the ensembles in table 1.
        ensemble_steps: numbers of denoising steps of its ensembles.
        left_out: (spacing, steps, members) of table 1 that are timed but not evaluated, because that costs too much.
        costly_steps: from so many denoising steps on, a single prediction counts as costly; ensembles always do.
        costly_seeds: seeds that costly ways of predicting are evaluated for.
        slow_steps: steps of the ensemble that is evaluated for every seed and task all the same, with trailing spacing.
        normals_steps: numbers of denoising steps that the normals estimator is evaluated with.
        timing_repeats: how often each way of predicting is timed.
        full_size_image: (height, width) of the timing at full size, on CPUs.
        full_size_image_cuda: the same on a GPU.
        full_size: whether to time Stable Diffusion 2's architecture; it needs 5 GiB of memory.
        final_lr_ratio: share of the learning rate that is left at the end of a run.
        ema_decay: decay of the average that the ablation evaluates.
    """

    data: DataSettings = field(default_factory=DataSettings)
    diffusion: Budget = Budget(800, 16, 50, (1e-3, 2e-3, 4e-3, 8e-3), 100)
    fine_tuning: Budget = Budget(240, 8, 20, (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3), 100)
    long_steps: int = 740
    seeds: tuple[int, ...] = (0, 1, 2)
    sweep_seed: int = 100
    grid_steps: tuple[int, ...] = (1, 2, 4, 10, 50)
    ensemble_size: int = 10
    ensemble_steps: tuple[int, ...] = (1, 2, 4, 10, 50)
    left_out: tuple[tuple[Spacing, int, int], ...] = ()
    costly_steps: int = 50
    costly_seeds: tuple[int, ...] = (0,)
    slow_steps: int = 4
    normals_steps: tuple[int, ...] = (1, 4, 10)
    timing_repeats: int = 3
    full_size_image: tuple[int, int] = (64, 96)
    full_size_image_cuda: tuple[int, int] = (576, 768)
    full_size: bool = True
    final_lr_ratio: float = 0.05
    ema_decay: float = 0.999


FULL = Settings()
QUICK = Settings(
    data=DataSettings(training_rooms=32, evaluation_rooms=20),
    diffusion=Budget(50, 8, 10, (2e-3,), 0),
    fine_tuning=Budget(2, 8, 1, (1e-3,), 0),
    long_steps=3,
    seeds=(0,),
    grid_steps=(1, 4),
    ensemble_size=2,
    ensemble_steps=(1, 4),
    left_out=(("leading", 1, 2), ("trailing", 1, 2)),
    slow_steps=4,
    normals_steps=(1, 4),
    timing_repeats=1,
    full_size=False,
)
