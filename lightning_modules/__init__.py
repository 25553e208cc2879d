"""Networks, tasks and estimators: everything that is trained."""

import sys

from lightning_modules import losses, metrics
from lightning_modules.diffusion import DiffusionEstimator
from lightning_modules.evaluation.saved_predictions import SavedPredictions
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.networks.pretrained_network import PretrainedNetwork
from lightning_modules.networks.sampling import Sampling
from lightning_modules.networks.stable_diffusion import StableDiffusion
from lightning_modules.several_tasks import SeveralTasks
from lightning_modules.single_step import SingleStepEstimator
from lightning_modules.tasks import Depth, Normals, Task
from lightning_modules.training.strategy import FullySharded

# The modules that these two were, by whose names the config.yaml of earlier runs has their classes.
_EARLIER = {
    losses: "loss_base loss_terms normalized_losses frequency_losses feature_alignment sink_loss curriculum",
    metrics: "metric_base albedo_metrics",
}
for _package, _names in _EARLIER.items():
    sys.modules.update({f"{__name__}.{_name}": _package for _name in _names.split()})

__all__ = [
    "Depth",
    "DiffusionEstimator",
    "FullySharded",
    "LatentNetwork",
    "Normals",
    "PretrainedNetwork",
    "Sampling",
    "SavedPredictions",
    "SeveralTasks",
    "SingleStepEstimator",
    "StableDiffusion",
    "Task",
]
