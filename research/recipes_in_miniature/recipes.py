"""The recipes that are compared: each is what its paper changes, on the same base, data, steps and learning rate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_modules import Depth, Normals, SeveralTasks, SingleStepEstimator, Task
from lightning_modules.losses.auxiliary import ImageReconstruction, LatentConsistency
from lightning_modules.losses.normalized import NormalizedGradientL1, NormalizedL1, NormalizedMSE
from lightning_modules.losses.pixel import ScaleShiftInvariantLoss
from lightning_modules.losses.sink import SinkLoss
from lightning_modules.networks.task_switch import TaskSwitch
from research.paper_in_miniature.networks import TINY_BASE, RememberingStableDiffusion

LOTUS = TaskSwitch(["annotation", "image"])
OUTPUTS = ["depth", "normals"]


@dataclass(frozen=True)
class Recipe:
    """One way to train a single-step estimator.

    Attributes:
        name: for tables and files.
        text: what it is, for people.
        task: makes the task.
        network: options of the network beside the base.
        model: makes the options of the estimator.
    """

    name: str
    text: str
    task: Callable[[], Task]
    network: dict[str, Any]
    model: Callable[[], dict[str, Any]] = dict

    def build(self, latents: dict[bytes, Tensor], **options: Any) -> SingleStepEstimator:  # noqa: ANN401
        """Return the estimator.

        Args:
            latents: memory of the frozen encoder.
            **options: those of every estimator.
        """
        network = RememberingStableDiffusion(latents, base=str(TINY_BASE), channels_last=True, **self.network)
        return SingleStepEstimator(network, self.task(), **self.model(), **options)


def _of_latents() -> Depth:
    return Depth(NormalizedL1(weight=0.0), parameterization="disparity")


def _both() -> SeveralTasks:
    return SeveralTasks([Depth(ScaleShiftInvariantLoss(weight=0.5)), Normals()])


def _genpercept() -> Depth:
    extra = [ScaleShiftInvariantLoss(normalize_target=True), NormalizedGradientL1(weight=1.0, num_scales=4)]
    return Depth(NormalizedMSE(), extra, clip_prediction=False)


def _sharp() -> Depth:
    return Depth(NormalizedL1(), [NormalizedGradientL1(weight=5.0)], parameterization="log", clip_prediction=False)


def _consistent() -> dict[str, Any]:
    return {"latent_consistency": LatentConsistency(1.0)}


def _lotus() -> dict[str, Any]:
    return _consistent() | {"image_reconstruction": ImageReconstruction(1.0)}


_IMAGE_ALONE: dict[str, Any] = {"noise": "none"}
_X0: dict[str, Any] = {"noise": "none", "prediction_type": "sample"}

RECIPES = (
    Recipe("linear", "E2E-FT: linear depth, image and zeros", Depth, {}),
    Recipe("log", "the same, log depth", lambda: Depth(parameterization="log"), {}),
    Recipe("sqrt", "the same, square root of depth", lambda: Depth(parameterization="sqrt"), {}),
    Recipe("disparity", "the same, disparity", lambda: Depth(parameterization="disparity"), {}),
    Recipe("sqrt_disparity", "the same, its square root", lambda: Depth(parameterization="sqrt_disparity"), {}),
    Recipe("image_alone", "linear depth, the image latent alone", Depth, _IMAGE_ALONE),
    Recipe("genpercept", "GenPercept's losses, the image latent alone", _genpercept, _IMAGE_ALONE),
    Recipe("latents", "loss between latents, disparity, x0", _of_latents, _X0, _consistent),
    Recipe(
        "lotus_d",
        "the same with the detail preserver (Lotus-D)",
        _of_latents,
        _X0 | {"switch": LOTUS},
        lambda: _lotus(),
    ),
    Recipe("sharp", "log depth, L1 and its gradient (Marigold V2, stage 1, without features)", _sharp, {}),
    Recipe("sink", "log depth, SinkLoss", lambda: Depth(SinkLoss(), parameterization="log", clip_prediction=False), {}),
    Recipe("normals", "E2E-FT of normals", Normals, {}),
    Recipe("switch", "depth and normals by switch", _both, {"switch": TaskSwitch(OUTPUTS)}),
    Recipe("joint", "depth and normals jointly (GeoWizard E2E)", _both, {"switch": TaskSwitch(OUTPUTS, joint=True)}),
)
