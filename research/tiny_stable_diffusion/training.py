"""The training loop that all stages share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from tqdm import tqdm

_REPORT_EVERY = 500


class Average:
    """Exponential moving average of a module's trained parameters."""

    def __init__(self, module: nn.Module, decay: float = 0.998) -> None:
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.values = [parameter.detach().clone() for parameter in self.parameters]
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters of one more step in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for value, parameter in zip(self.values, self.parameters, strict=True):
            value.lerp_(parameter, 1 - decay)

    def apply(self) -> None:
        """Put the average in the place of the parameters."""
        for value, parameter in zip(self.values, self.parameters, strict=True):
            parameter.data.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the place of the parameters for a while."""
        trained = [parameter.detach().clone() for parameter in self.parameters]
        self.apply()
        yield
        for value, parameter in zip(trained, self.parameters, strict=True):
            parameter.data.copy_(value)


def optimize(
    module: nn.Module,
    title: str,
    steps: int,
    learning_rate: float,
    loss_of_next_batch: Callable[[], Tensor],
    measure: Callable[[], object] | None = None,
) -> None:
    """Train what requires a gradient with AdamW and one cycle of the learning rate, and leave the average of it.

    Args:
        module: the module to train.
        title: name of the progress bar.
        steps: number of optimiser steps.
        learning_rate: its peak.
        loss_of_next_batch: draws a batch and returns its loss.
        measure: returns figures worth printing now and then.
    """
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions
    average = Average(module)
    optimizer = torch.optim.AdamW(average.parameters, lr=learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.05)
    losses: list[float] = []
    for step in tqdm(range(steps), title, mininterval=20):
        loss = loss_of_next_batch()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(average.parameters, 1.0)
        optimizer.step()
        schedule.step()
        average.update()
        losses.append(loss.item())
        if (step + 1) % _REPORT_EVERY == 0:
            with average.applied():
                figures = measure() if measure else ""
            print(step + 1, round(sum(losses) / len(losses), 4), figures, flush=True)
            losses.clear()
    average.apply()
