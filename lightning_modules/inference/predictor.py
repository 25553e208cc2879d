"""Predictions for any image, without a Trainer."""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.errors import InputError, check_choice
from lightning_modules.estimator import Estimator
from lightning_modules.inference.image_inputs import ImageLike, as_rgb, largest_value
from lightning_modules.inference.loading import load_model
from lightning_modules.inference.tiling import align_to, blend_tiles
from lightning_modules.single_task import alone
from lightning_modules.trained_on import DEFAULT_PROCESSING_RES, concern, default_resolution
from lightning_modules.uncertainty.spread import Uncertainty

Precision = Literal["float32", "bfloat16", "float16"]

_OVERLAP = 0.25


class Predictor:
    """Predicts at a chosen resolution and returns the prediction at the image's own size.

    Convention:
        The longest side is resized to ``processing_res`` (antialiased bilinear), the result resized back (bilinear):
        the arithmetic of diffusers' Marigold pipelines, so that an exported model gives the same values there.
        Predictions are published ones: see ``Modality`` in ``geometry.modalities``.

    Args:
        estimator: A trained estimator.
        processing_res: Longest side in pixels at which the network sees an image; 0 is the image's own size, and None
            that of the training, or 768 if the model does not say which it was.
        tile_size: Images that are larger than a square of this side, as the network would see them, are predicted
            in overlapping tiles and blended; 0 never tiles.
        device: Where to compute, for instance cuda or cpu; auto takes a GPU where there is one.
        precision: Arithmetic of the network: float32, or bfloat16 and float16 for speed.
        seed: Seed of the noise of networks trained with noise; all others ignore it.
        modality: Which modality to predict, of an estimator of several.
        uncertainty: What ``predict_with_spread`` measures uncertainty by; None for not at all.

    Raises:
        InputError: An option makes no sense, or the model has no such uncertainty.
    """

    def __init__(
        self,
        estimator: Estimator,
        processing_res: int | None = None,
        tile_size: int = 1024,
        device: str = "auto",
        precision: Precision = "float32",
        seed: int = 0,
        modality: str | None = None,
        uncertainty: Uncertainty | None = None,
    ) -> None:
        estimator = alone(estimator, modality)
        self.modality = estimator.task.modality
        self.trained_on = estimator.trained_on
        if processing_res is None and self.trained_on is None:
            warnings.warn(
                f"the model does not say at which size of images it was trained: they are seen at "
                f"{DEFAULT_PROCESSING_RES} pixels. Choose with processing_res.",
                stacklevel=2,
            )
        if processing_res is None:
            processing_res = default_resolution(self.trained_on)
        if processing_res < 0 or tile_size < 0:
            raise InputError(f"processing_res and tile_size must not be negative, got {processing_res}, {tile_size}.")
        if not 0 <= seed < 2**63:
            raise InputError(f"seed must lie in [0, 2^63), got {seed}.")
        check_choice("precision", precision, get_args(Precision))
        self.device = _device(device)
        self.estimator = estimator.to(self.device).eval()
        self.processing_res = processing_res
        if doubt := concern(processing_res, self.trained_on):
            warnings.warn(doubt, stacklevel=2)
        self.precision = precision
        self.seed = seed
        self.uncertainty = uncertainty
        if uncertainty is not None:
            uncertainty.check(estimator.draws_noise)
        factor = estimator.network.size_multiple
        self._tile_px = max(tile_size // factor, 8) * factor if tile_size else 0

    @classmethod
    def load(
        cls,
        source: str | Path,
        configs: Sequence[str | Path] = (),
        base: str | None = None,
        ema: Literal["auto", "true", "false"] = "auto",
        checkpoint: str | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Self:
        """Return a predictor of a trained model.

        Args:
            source: a checkpoint, a run's folder, an exported folder or the hub id of a Marigold model.
            configs: configuration files; by default the one in the run's folder.
            base: base model in place of the configured one.
            ema: whether to take the moving average of the weights; auto takes it where there is one.
            checkpoint: which checkpoint of a run: last, best or a file; by default the last.
            **options: arguments of the class.

        Raises:
            InputError: the model cannot be found or loaded.
        """
        return cls(load_model(source, configs, base, ema, checkpoint).estimator, **options)

    @property
    def kind(self) -> str:
        """What names of results hold: the modality's name."""
        return self.modality.name

    def __call__(self, image: ImageLike) -> np.ndarray:
        """Return the prediction for one image, at its size.

        Args:
            image: a file, an open Pillow image, an array (H,W,3) or a tensor (3,H,W), of uint8, uint16, or floating
                point in [0, 1].

        Returns:
            float32: (H,W) for a modality of a single channel such as depth, else (H,W,C).

        Raises:
            InputError: the image cannot be read.
        """
        return self.predict([image])[0]

    def predict(self, images: Sequence[ImageLike]) -> list[np.ndarray]:
        """Return the predictions for images that share a ``network_size``, computed as one batch.

        Args:
            images: each as for a call.

        Returns:
            float32 each, at the size of its image: (H,W) for a single channel, else (H,W,C).

        Raises:
            InputError: an image cannot be read, or they cannot share a batch.
        """
        arrays = self._batch_of(images)
        outputs = self._predict(self._inputs(arrays)) if arrays else ()
        return [self._finish(output, array) for output, array in zip(outputs, arrays, strict=True)]

    def predict_with_spread(self, images: Sequence[ImageLike]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return predictions as ``predict``, each with the spread (H,W) float32 that is its uncertainty.

        Convention:
            A spread is the standard deviation of several predictions of the image, after alignment where the modality
            needs it: in the unit of published values, of normals in degrees.

        Args:
            images: as in ``predict``.

        Raises:
            InputError: as ``predict``, or the predictor was made without ``uncertainty``.
        """
        if self.uncertainty is None:
            raise InputError(
                "a spread needs what it is measured by: make the predictor with uncertainty=Uncertainty(...)."
            )
        arrays = self._batch_of(images)
        if not arrays:
            return []
        inputs = self._inputs(arrays)
        predictions = self._predict(inputs)
        affine = self.modality.to_affine(predictions)
        spread = self.uncertainty.spread(
            affine,
            inputs,
            lambda seen, number: self.modality.to_affine(self._predict(seen, number)),
            self.modality,
            self.estimator.network.size_multiple,
        )
        found = zip(predictions, self.modality.publish_spread(affine, spread), arrays, strict=True)
        return [(self._finish(one, array), self._finish(far, array, is_spread=True)) for one, far, array in found]

    def _batch_of(self, images: Sequence[ImageLike]) -> list[np.ndarray]:
        """Return images as arrays, after a check that they can share a batch."""
        if not isinstance(images, Sequence) or isinstance(images, str):
            raise InputError("predict takes a list of images; for a single one, call the predictor itself.")
        arrays = [as_rgb(image) for image in images]
        sizes = sorted({self.network_size(*array.shape[:2]) for array in arrays})
        if len(sizes) > 1:
            seen = ", ".join(f"{height}x{width}" for height, width in sizes)
            raise InputError(f"images of one batch must be seen at one size, not {seen}; call the predictor for each.")
        return arrays

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) at which the network sees an image; images with the same one can share a batch.

        Args:
            height: of the image in pixels.
            width: of the image in pixels.
        """
        factor = self.estimator.network.size_multiple
        resized = self._resized(height, width)
        return resized[0] + -resized[0] % factor, resized[1] + -resized[1] % factor

    def needs_tiles(self, height: int, width: int) -> bool:
        """Say whether an image of a size is predicted in tiles, hence by itself."""
        return self._needs_tiles(*self.network_size(height, width))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if not self.processing_res:
            return height, width
        longest = max(height, width)
        return max(1, height * self.processing_res // longest), max(1, width * self.processing_res // longest)

    def _inputs(self, images: Sequence[np.ndarray]) -> Tensor:
        """Return images as a batch; of a single large one, there is no second copy."""
        inputs = [self._processed(image) for image in images]
        return inputs[0][None] if len(inputs) == 1 else torch.stack(inputs)

    def _processed(self, image: np.ndarray) -> Tensor:
        """Return (3,h,w) in [-1, 1], resized, and padded with its edge to the network's size. On the CPU."""
        height, width = image.shape[:2]
        size, (full_height, full_width) = self._resized(height, width), self.network_size(height, width)
        largest = largest_value(image)
        planes = []
        for channel in range(3):  # one at a time: a large image in float32 is much memory
            plane = torch.from_numpy(image[..., channel].astype(np.float32))[None, None]
            if size != (height, width):
                plane = F.interpolate(plane, size, mode="bilinear", antialias=True)
            planes.append(plane.mul_(2 / largest).sub_(1))  # after resizing: the fewer pixels, the less to do
        padding = (0, full_width - size[1], 0, full_height - size[0])
        return F.pad(torch.cat(planes, dim=1), padding, mode="replicate")[0]

    def _predict(self, images: Tensor, member: int | None = None) -> Tensor:
        """Return published predictions (B,C,H,W) for images (B,3,H,W), in tiles where a single one is large."""
        if len(images) == 1 and self._needs_tiles(*images.shape[-2:]):
            return self._predict_tiles(images[0], member)[None]
        return self._run(images, member)

    @torch.inference_mode()
    def _run(self, images: Tensor, member: int | None = None) -> Tensor:
        """Return published predictions (B,C,H,W) for images (B,3,H,W), on the CPU; or those of a member."""
        is_full, seeds = self.precision == "float32", [self.seed] * len(images)
        images = images.to(self.device)
        with nullcontext() if is_full else torch.autocast(self.device.type, getattr(torch, self.precision)):
            if member is None:
                prediction = self.estimator(images, seeds)
            else:
                prediction = self.estimator.predict_member(images, seeds, member)
        return self.modality.publish(prediction.float().cpu())

    def _run_affine(self, images: Tensor, member: int | None = None) -> Tensor:
        """Return predictions as ``_run``, in the space where parts of an image differ by scale and shift."""
        return self.modality.to_affine(self._run(images, member))

    def _needs_tiles(self, height: int, width: int) -> bool:
        return bool(self._tile_px) and height * width > self._tile_px**2

    def _predict_tiles(self, image: Tensor, member: int | None = None) -> Tensor:
        """Predict (3,H,W) in tiles; where predictions vary by image, tiles follow the whole image, seen from afar."""
        tile, overlap = self._tile_px, round(_OVERLAP * self._tile_px)
        if not self.modality.varies_by_image:
            blended = blend_tiles(image, tile, overlap, lambda part, _: self._run(part[None], member)[0])
            return self.modality.renormalize(blended[None])[0]
        factor = self.estimator.network.size_multiple
        shrink = tile / max(image.shape[-2:])
        size = [max(1, round(side * shrink / factor)) * factor for side in image.shape[-2:]]
        overview = self._run_affine(F.interpolate(image[None], size, mode="bilinear", antialias=True), member)
        guide = F.interpolate(overview, image.shape[-2:], mode="bilinear")[0]
        blended = blend_tiles(
            image,
            tile,
            overlap,
            lambda part, place: align_to(self._run_affine(part[None], member)[0], guide[(..., *place)]),
        )
        return self.modality.from_affine(blended.clamp(*self.modality.value_range))

    def _finish(self, output: Tensor, image: np.ndarray, is_spread: bool = False) -> np.ndarray:
        """Cut off the padding and resize (C,h,w), a prediction or a spread, to the image's size."""
        height, width = image.shape[:2]
        resized = self._resized(height, width)
        output = output[None, :, : resized[0], : resized[1]]
        if resized != (height, width):
            output = F.interpolate(output, (height, width), mode="bilinear")
        output = output[0] if is_spread else self.modality.renormalize(output)[0]
        return (output[0] if len(output) == 1 else output.movedim(0, -1)).contiguous().numpy()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"there is no device {name}: {str(error).splitlines()[0]}") from error
    return device
