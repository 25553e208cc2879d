"""An estimator of several modalities, as one of a single one: what is published, exported and scored is one of them."""

from geometry.errors import InputError
from lightning_modules.estimator import Estimator


def choose(estimator: Estimator, modality: str | None = None) -> list[Estimator]:
    """Return an estimator of each of the modalities, or of the one that is named alone.

    Args:
        estimator: one that is trained.
        modality: name of a modality.

    Raises:
        InputError: this one is not predicted.
    """
    names = [modality] if modality else [kind.name for kind in estimator.task.modalities]
    return [alone(estimator, name) for name in names]


def alone(estimator: Estimator, modality: str | None = None) -> Estimator:
    """Return an estimator of a single one of the modalities, with the same network: itself where there is one.

    Args:
        estimator: one that is trained.
        modality: name of the modality; may be left out where there is one.

    Raises:
        InputError: there are several and none is named, or this one is not predicted.
    """
    members = {task.modality.name: task for task in estimator.task.members}
    chosen = next(iter(members)) if modality is None and len(members) == 1 else modality
    if chosen not in members:
        given = "" if modality is None else f", not {modality!r}"
        raise InputError(
            f"the model predicts {', '.join(members)}: choose one of them with --modality, or modality=... in Python"
            f"{given}."
        )
    if len(members) == 1:
        return estimator
    single = type(estimator)(estimator.network, members[chosen])
    single.trained_on = estimator.trained_on and estimator.trained_on.of([members[chosen].modality])
    return single.train(estimator.training)
