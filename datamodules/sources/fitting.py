"""Frames of any size become samples of one size, camera included."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from datamodules.sources.protocol import PreparedSample
from datamodules.sources.resizing import resize_image
from geometry.camera import crop_camera, resize_camera
from geometry.errors import InputError
from geometry.modalities import modality_named


@dataclass(frozen=True)
class Shape:
    """How frames get the size of the samples.

    Attributes:
        image_size: (height, width) of the samples in pixels.
        how: "resize" scales, "crop" cuts around the centre, "crop-bottom" cuts at the bottom, horizontally centred,
            "keep" asks for frames of that very size.
    """

    image_size: tuple[int, int]
    how: Literal["resize", "crop", "crop-bottom", "keep"] = "keep"

    def fit(self, sample: PreparedSample, source: Path) -> PreparedSample:
        """Return a sample in the wanted size.

        Args:
            sample: the sample in the size of its files.
            source: file of the image, for messages.

        Raises:
            InputError: the frame is smaller than the crop, or of another size where sizes are kept.
        """
        old, new = (sample.image.shape[0], sample.image.shape[1]), self.image_size
        if old == tuple(new):
            return sample
        if self.how == "resize":
            return self._resize(sample, old)
        if self.how == "keep":
            raise InputError(
                f"{source} is {old[0]}x{old[1]} pixels, the first image {new[0]}x{new[1]}. "
                "Choose a size for all: --size HEIGHT WIDTH, or --crop HEIGHT WIDTH."
            )
        if old[0] < new[0] or old[1] < new[1]:
            raise InputError(
                f"{source} is {old[0]}x{old[1]} pixels, smaller than the crop of {new[0]}x{new[1]}. "
                "Pass --crop HEIGHT WIDTH with a size that fits."
            )
        return self._crop(sample, old)

    def _resize(self, sample: PreparedSample, old: tuple[int, int]) -> PreparedSample:
        new, camera = self.image_size, sample.camera_from_pixel
        if camera is not None:
            camera = resize_camera(torch.from_numpy(camera), old, new, sample.pixel_center).numpy()
        return replace(
            sample,
            image=np.rint(resize_image(sample.image.astype(np.float32) / 255, new) * 255).astype(np.uint8),
            targets={name: modality_named(name)().resize(values, new) for name, values in sample.targets.items()},
            camera_from_pixel=camera,
        )

    def _crop(self, sample: PreparedSample, old: tuple[int, int]) -> PreparedSample:
        height, width = self.image_size
        top = old[0] - height if self.how == "crop-bottom" else (old[0] - height) // 2
        left = (old[1] - width) // 2
        window, camera = (slice(top, top + height), slice(left, left + width)), sample.camera_from_pixel
        return replace(
            sample,
            image=np.ascontiguousarray(sample.image[window]),
            targets={name: np.ascontiguousarray(values[(..., *window)]) for name, values in sample.targets.items()},
            camera_from_pixel=None if camera is None else crop_camera(torch.from_numpy(camera), top, left).numpy(),
        )
