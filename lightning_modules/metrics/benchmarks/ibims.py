"""The geometric errors of iBims-1: where depth has edges, and how flat and how oriented planes are."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geometry.batch import GeometryBatch, Target
from geometry.camera import pixel_rays, unproject
from geometry.errors import InputError
from geometry.medians import median
from lightning_modules.metrics.base import ImageScores
from lightning_modules.metrics.benchmarks.aligned_depth import AlignedMetric

_MAX_DISTANCE_PX = 10.0
_SMALLEST_PLANE = 0.05


class DepthBoundaryError(ImageScores, AlignedMetric):
    """The depth boundary errors (DBE) of iBims-1 in pixels, after the alignment of a protocol; the mean over images.

    Convention:
        Edges of predicted depth, normalised to [0, 1], are those of a Canny filter (sigma sqrt 2, thresholds 0.15 and
        0.3). ``<protocol>/dbe_acc`` is the mean distance of those closer than 10 pixels to a true edge;
        ``<protocol>/dbe_comp`` the mean of the distances both ways, each at most 10. Both are 10 without any edge near
        a true one. Images without a true edge are not counted. Needs the reference ``edges``.

    Raises:
        InputError: scikit-image is not installed.

    Source:
        Koch et al., 2018, ``evaluate_ibims_error_metrics.py`` in the evaluation scripts of the dataset.
    """

    score_names = ("dbe_acc", "dbe_comp")
    default_protocol, reference, needs_reference = "least_squares", "edges", True

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - those of AlignedMetric
        _require_canny()
        super().__init__(*args, **options)

    def add(self, prediction: Tensor, target: Target, batch: GeometryBatch) -> None:
        """Add images.

        Args:
            prediction: (B,1,H,W) float.
            target: the edges as mask.
            batch: holds the depth to align with; without the reference, nothing is added.
        """
        if self.concerns(batch):
            self.update(prediction, *batch.targets["depth"], target.mask)

    def scores_of(self, prediction: Tensor, target: Tensor, valid: Tensor, *more: Tensor) -> Tensor | None:
        """Return both errors of an image, whose true edges (1,H,W) bool come last, if it has any."""
        (edges,) = more
        if not edges.any():
            return None
        aligned = self.align(prediction, target, valid)(prediction)[0]
        return aligned.new_tensor(depth_boundary_errors(_array(aligned), _array(edges[0])))


class PlanarityError(AlignedMetric):
    """The planarity errors (PE) of iBims-1, after the alignment of a protocol; the mean over planes.

    Convention:
        Of each plane that covers at least 5 % of the image, predicted depth is scaled to the median of the truth, and
        a plane is fitted to its points: ``<protocol>/pe_flat_cm`` is the standard deviation of their distances to
        it, ``<protocol>/pe_angle_deg`` the angle between its normal and the true one. Needs the reference ``planes``,
        whose values are the number of the plane and its normal in our frame, and a known camera.

    Source:
        Koch et al., 2018, ``evaluate_ibims_error_metrics.py`` in the evaluation scripts of the dataset.
    """

    score_names = ("pe_flat_cm", "pe_angle_deg")
    headline_score, counted_by = "pe_angle_deg", "num_planes"
    default_protocol, reference, needs_reference = "least_squares", "planes", True
    num_planes: Tensor

    def add(self, prediction: Tensor, target: Target, batch: GeometryBatch) -> None:
        """Add images.

        Args:
            prediction: (B,1,H,W) float.
            target: the planes.
            batch: holds the depth to align with and the camera; without the reference, nothing is added.
        """
        if self.concerns(batch) and batch.camera is not None:
            self.update(prediction, *batch.targets["depth"], target, batch.camera)

    def update(self, prediction: Tensor, target: Tensor, valid_mask: Tensor, planes: Target, camera: Tensor) -> None:
        """Add images.

        Args:
            prediction: (B,1,H,W) float.
            target: (B,1,H,W) float, metres.
            valid_mask: (B,1,H,W) bool.
            planes: values (B,4,H,W), the number of the plane and its normal; the mask is where there is one.
            camera: (B,3,3) float, ``camera_from_pixel``.
        """
        for index in range(len(prediction)):
            valid, depth = valid_mask[index], target[index]
            if not valid.any() or not camera[index].isfinite().all():
                continue
            aligned = self.align(prediction[index], depth, valid)(prediction[index])
            errors = _errors_of_planes(
                aligned, depth.double(), valid, planes.values[index], planes.mask[index], camera[index]
            )
            for error in errors:
                self.sums += error
            self.num_planes += len(errors)
            self.num_images += bool(errors)


def depth_boundary_errors(depth: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """Return accuracy and completeness of the edges of predicted depth, in pixels.

    Args:
        depth: (H,W) float, predicted, without unknown values.
        edges: (H,W) bool, true edges, some at least.
    """
    from scipy.ndimage import distance_transform_edt

    to_true = distance_transform_edt(~edges)
    found = canny_edges(depth)
    near = found & (to_true < _MAX_DISTANCE_PX)
    if not near.any():
        return _MAX_DISTANCE_PX, _MAX_DISTANCE_PX
    to_found = distance_transform_edt(~found)
    both = to_true[found].clip(max=_MAX_DISTANCE_PX).sum() + to_found[edges].clip(max=_MAX_DISTANCE_PX).sum()
    return float(to_true[near].mean()), float(both / (found.sum() + edges.sum()))


def canny_edges(depth: np.ndarray) -> np.ndarray:
    """Return the edges (H,W) bool of depth that is normalised to [0, 1] first; none of a constant.

    Args:
        depth: (H,W) float.
    """
    from skimage.feature import canny

    values = depth.astype(np.float32)
    values -= values.min()
    if not values.max() > 0:
        return np.zeros(depth.shape, bool)
    return canny(values / values.max(), sigma=math.sqrt(2), low_threshold=0.15, high_threshold=0.3)


def plane_errors(points: Tensor, normal: Tensor) -> Tensor:
    """Return flatness in centimetres and angle in degrees of points that should lie on a plane, (2,).

    Args:
        points: (N,3) float64, metres.
        normal: (3,) float64, the true normal; its sign does not count.
    """
    centred = points - points.mean(dim=0)
    fitted = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, 0]
    angle = torch.atan2(torch.linalg.cross(normal, fitted).norm(), (normal @ fitted).abs())
    return torch.stack([100 * (centred @ fitted).std(correction=0), angle.rad2deg()])


def _errors_of_planes(
    aligned: Tensor, depth: Tensor, valid: Tensor, planes: Tensor, mask: Tensor, camera: Tensor
) -> list[Tensor]:
    """Return the errors of the planes of one image that are large enough."""
    height, width = depth.shape[-2:]
    rays = pixel_rays(camera.double(), height, width)
    errors = []
    for number in planes[0][mask[0]].unique().tolist():
        here = mask[0] & (planes[0] == number)
        if here.sum() < _SMALLEST_PLANE * height * width or not (here & valid[0]).any():
            continue
        scale = median(depth[0][here & valid[0]]) / median(aligned[0][here])
        points = unproject((scale * aligned)[None], rays[None])[0][:, here].T
        errors.append(plane_errors(points, planes[1:, here][:, 0].double()))
    return errors


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()


def _require_canny() -> None:
    try:
        import skimage.feature  # noqa: F401
    except ImportError as error:
        raise InputError(
            "the depth boundary errors of iBims-1 need scikit-image: pip install -e '.[edges]', or leave them out."
        ) from error
