"""Using a trained model: from a checkpoint or an export to depth or normals of any image."""

from lightning_modules.inference.loading import LoadedModel, load_model
from lightning_modules.inference.predictor import Predictor

__all__ = ["LoadedModel", "Predictor", "load_model"]
