"""Metrics: what a configuration names as ``lightning_modules.metrics.NAME``, and the protocols of benchmarks."""

from lightning_modules.metrics.albedo import AlbedoError
from lightning_modules.metrics.base import GeometryMetric, MeanError
from lightning_modules.metrics.depth import AffineInvariantDepth
from lightning_modules.metrics.normals import NormalsError

__all__ = ["AffineInvariantDepth", "AlbedoError", "GeometryMetric", "MeanError", "NormalsError"]
