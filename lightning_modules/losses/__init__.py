"""Losses: what a configuration names as ``lightning_modules.losses.NAME``."""

from lightning_modules.losses.auxiliary import GradientMatching, ImageReconstruction, LatentConsistency
from lightning_modules.losses.base import Aligned, Loss, LossInputs
from lightning_modules.losses.feature_alignment import FeatureAlignment, FeatureMatching
from lightning_modules.losses.frequency import FourierLoss, WaveletLoss
from lightning_modules.losses.normalized import HuberGradient, NormalizedGradientL1, NormalizedL1, NormalizedMSE
from lightning_modules.losses.pixel import AngularLoss, ModalityLoss, ScaleShiftInvariantLoss
from lightning_modules.losses.scheduled import Scheduled
from lightning_modules.losses.sink import SinkLoss

__all__ = [
    "Aligned",
    "AngularLoss",
    "FeatureAlignment",
    "FeatureMatching",
    "FourierLoss",
    "GradientMatching",
    "HuberGradient",
    "ImageReconstruction",
    "LatentConsistency",
    "Loss",
    "LossInputs",
    "ModalityLoss",
    "NormalizedGradientL1",
    "NormalizedL1",
    "NormalizedMSE",
    "ScaleShiftInvariantLoss",
    "Scheduled",
    "SinkLoss",
    "WaveletLoss",
]
