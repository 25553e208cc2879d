"""Learning-rate schedules as plain functions of the number of optimiser steps."""

import math


def warmup_exponential(
    step: int, warmup_steps: int = 100, total_steps: int = 20_000, final_ratio: float = 0.01
) -> float:
    """Return the factor on the learning rate for one optimiser step.

    Convention:
        ``step`` counts optimiser steps from 0, not micro-batches or ranks. With the defaults: 0.01 at step 0, 1 at
        steps 99 and 100, 0.01 from step 20,000 on. Never 0.

    Args:
        step: number of optimiser steps taken before this one.
        warmup_steps: number of steps of the linear rise to 1; 0 starts at 1.
        total_steps: step at which the exponential decay arrives at ``final_ratio``.
        final_ratio: factor from ``total_steps`` on.

    Returns:
        Factor in (0, 1].

    Source:
        The recipe of Martin Garcia et al., "Fine-Tuning Image-Conditional Diffusion Models is Easier than You Think".
        Deviation: the rise starts at ``1 / warmup_steps``; theirs starts at 0, which wastes the first step.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if step >= total_steps:
        return final_ratio
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return math.exp(math.log(final_ratio) * progress)
