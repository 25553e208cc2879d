"""The recipes that are compared: each is what its paper changes, on the same base, data, steps and learning rate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from geometry.parameterization import ParameterizationName
from lightning_modules import Depth, Normals, SeveralTasks, SingleStepEstimator, Task
from lightning_modules.losses import Loss
from lightning_modules.losses.auxiliary import ImageReconstruction, LatentConsistency
from lightning_modules.losses.normalized import NormalizedGradientL1, NormalizedL1, NormalizedMSE
from lightning_modules.losses.pixel import ScaleShiftInvariantLoss
from lightning_modules.losses.sink import SinkLoss
from lightning_modules.networks.task_switch import TaskSwitch
from research.recipes_in_miniature.bases import BASES, BaseName

LOTUS = TaskSwitch(["annotation", "image"])
OUTPUTS = ["depth", "normals"]


@dataclass(frozen=True)
class Recipe:
    """One way to train a single-step estimator.

    Attributes:
        name: for tables and files.
        text: what it is, for people.
        task: makes the task.
        networks: options of the network by base; the recipe is compared on these bases.
        model: makes the options of the estimator.
    """

    name: str
    text: str
    task: Callable[[], Task]
    networks: dict[BaseName, dict[str, Any]]
    model: Callable[[], dict[str, Any]] = dict

    def build(self, base: BaseName, latents: dict[bytes, Tensor], **options: Any) -> SingleStepEstimator:  # noqa: ANN401
        """Return the estimator.

        Args:
            base: name of the base, one of ``networks``.
            latents: memory of the frozen encoder of the base.
            **options: those of every estimator.
        """
        network = BASES[base].network(latents, **self.networks[base])
        return SingleStepEstimator(network, self.task(), **self.model(), **options)


def recipes_of(base: BaseName) -> list[Recipe]:
    """Return the recipes that are compared on a base."""
    return [recipe for recipe in RECIPES if base in recipe.networks]


def _upright(parameterization: ParameterizationName = "linear") -> Callable[[], Depth]:
    """Return what makes E2E-FT's task with a loss that tells near from far."""
    return lambda: Depth(ScaleShiftInvariantLoss(positive_scale=True), parameterization=parameterization)


def _of_latents() -> Depth:
    return Depth(NormalizedL1(weight=0.0), parameterization="disparity")


def _both() -> SeveralTasks:
    return SeveralTasks([Depth(ScaleShiftInvariantLoss(positive_scale=True, weight=0.5)), Normals()])


def _genpercept() -> Depth:
    extra = [ScaleShiftInvariantLoss(normalize_target=True), NormalizedGradientL1(weight=1.0, num_scales=4)]
    return Depth(NormalizedMSE(), extra, clip_prediction=False)


def _log(loss: Loss, *extra: Loss) -> Callable[[], Depth]:
    """Return what makes a task of log depth; what is clipped would have no gradient in these losses."""
    return lambda: Depth(loss, list(extra), parameterization="log", clip_prediction=False)


def _consistent() -> dict[str, Any]:
    return {"latent_consistency": LatentConsistency(1.0)}


def _lotus() -> dict[str, Any]:
    return _consistent() | {"image_reconstruction": ImageReconstruction(1.0)}


_IMAGE_ALONE: dict[BaseName, dict[str, Any]] = {
    "unet": {"noise": "none"},
    "transformer": {"noise": "none", "input_mode": "image"},
}
_X0: dict[str, Any] = {"noise": "none", "prediction_type": "sample"}
_ANY: dict[BaseName, dict[str, Any]] = {"unet": {}, "transformer": {}}


def _unet(**options: Any) -> dict[BaseName, dict[str, Any]]:  # noqa: ANN401
    return {"unet": options}


RECIPES = (
    Recipe("linear", "E2E-FT with a positive scale: linear depth, image and zeros", _upright(), _ANY),
    Recipe("either_way", "E2E-FT as published: the scale may be negative", Depth, _ANY),
    Recipe("log", "linear, but log depth", _upright("log"), _ANY),
    Recipe("disparity", "linear, but disparity", _upright("disparity"), _ANY),
    Recipe("sqrt", "linear, but the square root of depth", _upright("sqrt"), _unet()),
    Recipe("sqrt_disparity", "linear, but the square root of disparity", _upright("sqrt_disparity"), _unet()),
    Recipe("image_alone", "linear, but the image latent alone", _upright(), _IMAGE_ALONE),
    Recipe(
        "residual",
        "log, but the image latent minus the output at t = 0.5 (Marigold V2)",
        _upright("log"),
        {"transformer": {"input_mode": "residual", "timestep": 500}},
    ),
    Recipe("genpercept", "GenPercept's losses, the image latent alone", _genpercept, _unet(noise="none")),
    Recipe(
        "latents", "disparity, loss between latents, the image latent alone", _of_latents, _unet(**_X0), _consistent
    ),
    Recipe("lotus_d", "latents with the detail preserver", _of_latents, _unet(**_X0, switch=LOTUS), _lotus),
    Recipe("plain", "log, but L1 on normalised depth", _log(NormalizedL1()), _unet()),
    Recipe(
        "sharp",
        "plain and 5 times L1 of its gradient (Marigold V2, stage 1, without features)",
        _log(NormalizedL1(), NormalizedGradientL1(weight=5.0)),
        _unet(),
    ),
    Recipe("sink", "plain, but SinkLoss in place of L1 (Marigold V2, stage 2)", _log(SinkLoss()), _unet()),
    Recipe("normals", "E2E-FT of normals", Normals, _unet()),
    Recipe("switch", "depth and normals by switch", _both, _unet(switch=TaskSwitch(OUTPUTS))),
    Recipe("joint", "depth and normals jointly (GeoWizard E2E)", _both, _unet(switch=TaskSwitch(OUTPUTS, joint=True))),
)
