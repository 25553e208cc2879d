"""What is predicted: how a decoded image becomes depth or normals, and how that is trained, judged and shown."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from geometry.alignment import align_scale_shift
from geometry.batch import GeometryBatch
from geometry.colorize import colorize_depth, colorize_error, colorize_normals
from geometry.errors import InputError
from geometry.normals import convert_frame
from lightning_modules.ensembling import ensemble_depth, ensemble_normals
from lightning_modules.loss_terms import LossTerm, add_terms
from lightning_modules.losses import AngularLoss, ScaleShiftInvariantLoss, masked_quantiles
from lightning_modules.metrics import AffineInvariantDepth, NormalsError, angle_deg

_TARGET_QUANTILES = (0.02, 0.98)
_WORST_RELATIVE_ERROR = 0.5
_WORST_ANGLE_DEG = 60.0


class Task(nn.Module, ABC):
    """A kind of geometry to predict. A new modality is a new subclass.

    Attributes:
        required_keys: keys that a batch must hold beside ``image``, ``key`` and ``dataset``.
        headline_metric: the metric that sums up a validation; less is better.
        constant_metric: what the best constant prediction scores as ``headline_metric``.
    """

    required_keys: ClassVar[tuple[str, ...]]
    headline_metric: ClassVar[str]
    constant_metric: ClassVar[str]

    @abstractmethod
    def predict(self, decoded: Tensor) -> Tensor:
        """Return the prediction that a decoded image stands for.

        Args:
            decoded: (B,3,H,W), output of the VAE decoder, nominally in [-1, 1].

        Returns:
            (B,C,H,W) float32.
        """

    @abstractmethod
    def training_loss(self, prediction: Tensor, batch: GeometryBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss, and further scalars worth logging by name."""

    @abstractmethod
    def make_metric(
        self, depth_range_m: tuple[float, float] = (0.0, math.inf), max_fit_size_px: int | None = None
    ) -> Metric:
        """Return a new metric for one data set, whose states are sums and whose ``compute`` returns scalars by name.

        Args:
            depth_range_m: smallest and largest depth that can be true in this data set.
            max_fit_size_px: longest side of the images on which a prediction is fitted; None takes all pixels.
        """

    @abstractmethod
    def update_metric(self, metric: Metric, prediction: Tensor, batch: GeometryBatch) -> None:
        """Add a validation batch to a metric made by ``make_metric``."""

    @abstractmethod
    def pictures(self, prediction: Tensor, batch: GeometryBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return prediction, ground truth and error as pictures, each (B,3,H,W) float32 in [0, 1]."""

    def target_image(self, batch: GeometryBatch) -> tuple[Tensor, Tensor]:
        """Return the ground truth as a picture for the VAE, the one that ``predict`` turns into the truth.

        Returns:
            (B,3,H,W) float32 in [-1, 1], a constant where the truth is unknown; and (B,1,H,W) bool, where it is known.

        Raises:
            InputError: the task has no such picture.
        """
        raise InputError(f"task {type(self).__name__} has no picture of the truth for a diffusion model to learn.")

    def ensemble(self, members: Tensor) -> Tensor:
        """Return one prediction (B,C,H,W) for several predictions (N,B,C,H,W) of the same images.

        Raises:
            InputError: the task cannot combine predictions.
        """
        raise InputError(f"task {type(self).__name__} cannot combine predictions; set ensemble_size to 1.")

    def check(self, batch: GeometryBatch) -> None:
        """Check that a batch holds what the task needs.

        Raises:
            InputError: it does not; names the task, the keys and the data set.
        """
        missing = [key for key in self.required_keys if key not in batch]
        if missing:
            raise InputError(
                f"task {type(self).__name__} needs {' and '.join(missing)}, but data set "
                f"{batch.get('dataset', 'without a name')!r} does not deliver "
                f"{'it' if len(missing) == 1 else 'them'}. Prepare the data set with {missing[0]}, make sure that the "
                "data module reads them, or leave the data set out."
            )


class Depth(Task):
    """Depth up to scale and shift: the mean over the decoded channels, clamped to [-1, 1].

    Args:
        loss: The training loss; the paper's by default.
        extra_losses: Terms to add to the loss, such as GradientMatching; each is logged under its own name.
    """

    required_keys = ("depth", "valid_mask")
    headline_metric = "abs_rel"
    constant_metric = "abs_rel_constant"

    def __init__(self, loss: ScaleShiftInvariantLoss | None = None, extra_losses: list[LossTerm] | None = None) -> None:
        super().__init__()
        self.loss = loss or ScaleShiftInvariantLoss()
        self.extra_losses = list(extra_losses or [])

    def predict(self, decoded: Tensor) -> Tensor:
        """Return (B,1,H,W) float32 in [-1, 1]."""
        return decoded.float().mean(dim=1, keepdim=True).clamp(-1, 1)

    def target_image(self, batch: GeometryBatch) -> tuple[Tensor, Tensor]:
        """Return depth in three equal channels: its 2 % quantile is -1, its 98 % quantile and the unknown are 1."""
        known = batch["valid_mask"]
        depth = torch.where(known, batch["depth"].float(), 0.0)
        low, high = (bound[:, None, None, None] for bound in masked_quantiles(depth, known, _TARGET_QUANTILES))
        span = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
        relative = 2 * (depth.clamp(low, high) - low) / span - 1
        return torch.where(known, relative, 1.0).expand(-1, 3, -1, -1), known

    def ensemble(self, members: Tensor) -> Tensor:
        """Return the median of the members after aligning their scales and shifts."""
        return 2 * ensemble_depth(members / 2 + 0.5) - 1

    def training_loss(self, prediction: Tensor, batch: GeometryBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss with its extra terms, the terms, and the share of images whose fitted scale is negative."""
        loss, aligned = self.loss.loss_and_alignment(prediction, batch["depth"], batch["valid_mask"])
        loss, terms = add_terms(loss, self.extra_losses, aligned.prediction, aligned.target, aligned.mask)
        share = (aligned.scale < 0).sum() / aligned.scale.isfinite().sum().clamp(min=1)
        return loss, {"negative_scale_share": share, **terms}

    def make_metric(
        self, depth_range_m: tuple[float, float] = (0.0, math.inf), max_fit_size_px: int | None = None
    ) -> Metric:
        """Return affine-invariant depth metrics."""
        return AffineInvariantDepth(*depth_range_m, max_fit_size_px)

    def update_metric(self, metric: Metric, prediction: Tensor, batch: GeometryBatch) -> None:
        """Add a validation batch."""
        metric.update(prediction, batch["depth"], batch["valid_mask"])

    def pictures(self, prediction: Tensor, batch: GeometryBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the aligned prediction and the truth in the colours of one range, and the relative error."""
        depth, known = batch["depth"], batch["valid_mask"]
        scale, shift = align_scale_shift(prediction, depth, known)
        aligned = scale[:, None, None, None] * prediction + shift[:, None, None, None]
        error = (aligned - depth).abs() / torch.where(known, depth, 1.0)
        pairs = [_colorize_alike(*images) for images in zip(aligned, depth, known, strict=True)]
        shown, truth = (torch.stack(images) for images in zip(*pairs, strict=True))
        return shown, truth, colorize_error(error, known, _WORST_RELATIVE_ERROR)


def _colorize_alike(prediction: Tensor, depth: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Colour one image's (1,H,W) prediction and truth with the range of the truth."""
    values = depth[known].double()
    near, far = torch.quantile(values, values.new_tensor([0.02, 0.98])).tolist() if len(values) else (0.0, 1.0)
    shown = colorize_depth(prediction[None], near=near, far=far)
    return shown[0], colorize_depth(depth[None], known[None], near=near, far=far)[0]


class Normals(Task):
    """Surface normals: the decoded image divided by its length.

    Args:
        loss: The training loss; the paper's by default.
        frame: The camera frame that the network speaks: opengl (x right, y up, z toward the viewer) is ours, and
            dsine (x left) that of the checkpoints of the paper's authors. Predictions are converted to ours.
        extra_losses: Terms to add to the loss, such as GradientMatching; each is logged under its own name.
    """

    required_keys = ("normals", "normals_mask")
    headline_metric = "mean_angle_deg"
    constant_metric = "mean_angle_constant_deg"

    def __init__(
        self,
        loss: AngularLoss | None = None,
        frame: Literal["opengl", "dsine"] = "opengl",
        extra_losses: list[LossTerm] | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss or AngularLoss()
        self.extra_losses = list(extra_losses or [])
        self.frame = frame

    def predict(self, decoded: Tensor) -> Tensor:
        """Return (B,3,H,W) float32 unit vectors in our frame."""
        decoded = decoded.float()
        return convert_frame(decoded / (decoded.norm(dim=1, keepdim=True) + 1e-5), self.frame, "opengl")

    def target_image(self, batch: GeometryBatch) -> tuple[Tensor, Tensor]:
        """Return the normals in the network's frame, zero where unknown."""
        known = batch["normals_mask"]
        return convert_frame(torch.where(known, batch["normals"].float(), 0.0), "opengl", self.frame), known

    def ensemble(self, members: Tensor) -> Tensor:
        """Return, pixel by pixel, the member closest to the mean direction."""
        return ensemble_normals(members)

    def training_loss(self, prediction: Tensor, batch: GeometryBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss with its extra terms, and the terms."""
        truth, known = batch["normals"], batch["normals_mask"]
        return add_terms(self.loss(prediction, truth, known), self.extra_losses, prediction, truth, known)

    def make_metric(
        self, depth_range_m: tuple[float, float] = (0.0, math.inf), max_fit_size_px: int | None = None
    ) -> Metric:
        """Return angular errors."""
        return NormalsError()

    def update_metric(self, metric: Metric, prediction: Tensor, batch: GeometryBatch) -> None:
        """Add a validation batch."""
        metric.update(prediction, batch["normals"], batch["normals_mask"])

    def pictures(self, prediction: Tensor, batch: GeometryBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return predicted and true normals as colours, and the angle between them."""
        truth, known = batch["normals"], batch["normals_mask"]
        error = angle_deg(prediction.float(), truth.float())
        return (
            colorize_normals(prediction),
            colorize_normals(truth, known),
            colorize_error(error, known, _WORST_ANGLE_DEG),
        )
