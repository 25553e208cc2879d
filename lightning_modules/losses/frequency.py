"""Losses that weigh the error by its frequency, so that edges count beside large surfaces."""

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.errors import InputError
from geometry.masked import masked_mean
from lightning_modules.losses.normalized import NormalizedLoss, known_error


class FourierLoss(NormalizedLoss):
    """Amplitude of the error's Fourier transform, the finer the frequency the heavier.

    Convention:
        The error is 0 where the truth is unknown. Of its orthonormal transform, the amplitude of each frequency is
        weighed with (f / f_max)^power, f being its distance from the origin and f_max that of the corner; the mean over
        frequencies, channels and images is taken. Power 0 weighs all alike. In the range of the VAE's images.

    Args:
        weight: Factor on the term before it is added.
        power: How much more fine frequencies weigh.

    Source:
        After the Fourier loss of Jiang et al., "Focal Frequency Loss for Image Reconstruction and Synthesis", with
        weights that are fixed; DepthMaster compares spectra, too.
    """

    name = "fourier"

    def __init__(self, weight: float = 0.1, power: float = 1.0) -> None:
        super().__init__(weight)
        if not power >= 0:
            raise InputError(f"FourierLoss needs power >= 0, got {power}.")
        self.power = power

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the weighed mean amplitude; exactly 0 where nothing is known."""
        error = known_error(prediction, target, valid_mask)
        height, width = error.shape[-2:]
        spectrum = torch.fft.fft2(error, norm="ortho")
        rows, columns = (torch.fft.fftfreq(side, device=error.device, dtype=error.dtype) for side in (height, width))
        frequency = torch.hypot(rows[:, None].expand(height, width), columns.expand(height, width)) * 2**0.5
        # An amplitude of exactly 0 would have no gradient; a hair beside it has 0.
        amplitude = (spectrum.real.square() + spectrum.imag.square() + 1e-16).sqrt() - 1e-8
        return (frequency**self.power * amplitude).mean()


class WaveletLoss(NormalizedLoss):
    """Absolute Haar details of the error at several levels: horizontal, vertical and diagonal edges.

    Convention:
        A level halves the image: each 2 x 2 block has an average, which the next level goes on with, and three details,
        (right - left), (lower - upper) and their cross difference, each halved. A block counts where all of its pixels
        are known. The mean absolute detail of each level is weighed with 1 / 2^level, level 0 being the finest, and the
        levels are added. In the range of the VAE's images.

    Args:
        weight: Factor on the term before it is added.
        num_levels: Number of levels.
    """

    name = "wavelet"

    def __init__(self, weight: float = 0.5, num_levels: int = 3) -> None:
        super().__init__(weight)
        if num_levels < 1:
            raise InputError(f"WaveletLoss needs num_levels >= 1, got {num_levels}.")
        self.num_levels = num_levels

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the weighed sum over the levels; exactly 0 where no block is known as a whole."""
        average, known = known_error(prediction, target, valid_mask), valid_mask
        total = average.new_zeros(()) + 0 * average.sum()
        for level in range(self.num_levels):
            height, width = (side // 2 * 2 for side in average.shape[-2:])
            if not height or not width:
                break
            corners = [average[..., row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]
            upper_left, upper_right, lower_left, lower_right = corners
            right = upper_right + lower_right - upper_left - lower_left
            lower = lower_left + lower_right - upper_left - upper_right
            cross = upper_left + lower_right - upper_right - lower_left
            details = (right.abs() + lower.abs() + cross.abs()).mean(dim=1, keepdim=True) / 6
            known = ~F.max_pool2d((~known[..., :height, :width]).float(), 2).bool()
            total = total + masked_mean(details, known, "pixel") / 2**level
            average = torch.stack(corners).mean(dim=0)
        return total
