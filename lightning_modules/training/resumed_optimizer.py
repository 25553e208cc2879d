"""An optimiser that goes on from a checkpoint, with the settings of now."""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from geometry.errors import InputError
from geometry.torch_internals import LAST_RATES


class StoredSettings:
    """The settings of optimiser and schedule in a checkpoint, which is about to be loaded.

    Args:
        checkpoint: content of the checkpoint.
    """

    def __init__(self, checkpoint: Mapping[str, Any]) -> None:
        # Not the checkpoint itself: its moments are twice the size of the weights.
        self._groups = [state["param_groups"] for state in checkpoint.get("optimizer_states", [])]
        self._schedules = list(checkpoint.get("lr_schedulers", []))

    def follow(self, optimizer: Optimizer, scheduler: LRScheduler) -> None:
        """Put the settings of a new optimiser and its schedule into the checkpoint.

        PyTorch would take the learning rate and all other settings from the checkpoint. The moments and the number of
        steps stay. With unchanged settings, nothing changes, to the bit.

        Args:
            optimizer: the optimiser as it was configured.
            scheduler: its schedule. One that is no ``LambdaLR`` keeps the learning rates of the checkpoint.

        Raises:
            InputError: the states in the checkpoint are another optimiser's.
        """
        for groups, schedule in zip(self._groups, self._schedules, strict=True):
            if [set(group) for group in groups] != [set(group) for group in optimizer.param_groups]:
                raise InputError(
                    f"the states in the checkpoint are not those of the optimiser {type(optimizer).__name__}: use the "
                    "one that it was trained with. To start from its weights alone, give it to --model.init_from in "
                    "place of --ckpt_path, and the run another --name."
                )
            for group, own in zip(groups, optimizer.param_groups, strict=True):
                group |= {name: value for name, value in own.items() if name not in ("params", "lr", "initial_lr")}
            if not isinstance(scheduler, LambdaLR):
                continue
            factors = [factor(schedule["last_epoch"]) for factor in scheduler.lr_lambdas]
            rates = [base * factor for base, factor in zip(scheduler.base_lrs, factors, strict=True)]
            for group, own, rate in zip(groups, optimizer.param_groups, rates, strict=True):
                group |= {"lr": rate, "initial_lr": own["initial_lr"]}
            schedule |= {"base_lrs": list(scheduler.base_lrs), LAST_RATES: rates}
