"""Networks, tasks and estimators: everything that is trained."""

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
