"""Networks, tasks and estimators: everything that is trained."""

from lightning_modules.evaluation.saved_predictions import SavedPredictions
from lightning_modules.network import LatentNetwork
from lightning_modules.single_step import SingleStepEstimator
from lightning_modules.stable_diffusion import StableDiffusion
from lightning_modules.tasks import Depth, Normals, Task

__all__ = ["Depth", "LatentNetwork", "Normals", "SavedPredictions", "SingleStepEstimator", "StableDiffusion", "Task"]
