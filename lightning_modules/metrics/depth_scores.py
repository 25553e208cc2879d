"""The figures of depth for one image, whatever brought the prediction to metres."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

DELTA_BASE = 1.25
_PIXELS_AT_A_TIME = 2**20

DEPTH_METRICS = (
    "abs_rel",
    "sq_rel",
    "rmse",
    "rmse_log",
    "log10",
    "delta1",
    "delta2",
    "delta3",
    "irmse",
    "silog",
    "abs_rel_constant",
)


def depth_scores(
    prediction: Tensor, target: Tensor, align: Callable[[Tensor], Tensor], epsilon_m: float = 0.0
) -> Tensor:
    """Return the metrics of one image, (number of metrics,) float64, in the order of ``DEPTH_METRICS``.

    It goes a part at a time: some images have 20 million pixels.

    Args:
        prediction: (N,) float, the prediction at the pixels that count.
        target: (N,) float, their depth in metres.
        align: returns the prediction as positive depth in metres, float64.
        epsilon_m: added to what errors and ratios are divided by, where a protocol does so.
    """
    sums = target.new_zeros(len(DEPTH_METRICS), dtype=torch.float64)
    if len(target) == 0:
        return sums
    constant = best_constant(target)
    for some, known in zip(prediction.split(_PIXELS_AT_A_TIME), target.split(_PIXELS_AT_A_TIME), strict=True):
        depth = known.double()
        aligned = align(some)
        error = aligned - depth
        log_error = aligned.log() - depth.log()
        ratio = torch.maximum(aligned / (depth + epsilon_m), depth / (aligned + epsilon_m))
        sums += torch.stack(
            [
                (error.abs() / (depth + epsilon_m)).sum(),
                (error.square() / depth).sum(),
                error.square().sum(),
                log_error.square().sum(),
                log_error.abs().sum(),
                *((ratio < DELTA_BASE**power).sum() for power in (1, 2, 3)),
                (1 / aligned - 1 / depth).square().sum(),
                log_error.sum(),
                ((constant - depth).abs() / depth).sum(),
            ]
        )
    abs_rel, sq_rel, square, square_log, log, *deltas, square_inverse, signed_log, constant_rel = sums / len(target)
    return torch.stack(
        [
            abs_rel,
            sq_rel,
            square.sqrt(),
            square_log.sqrt(),
            log / math.log(10),
            *deltas,
            square_inverse.sqrt(),
            100 * (square_log - signed_log.square()).clamp(min=0).sqrt(),
            constant_rel,
        ]
    )


def best_constant(depth: Tensor) -> Tensor:
    """Return the constant () that minimises the mean of |constant - depth| / depth over positive depths (N,).

    That is the median of the depths, each weighed with 1 / depth; 1 without any.
    """
    if len(depth) == 0:
        return depth.new_ones(())
    middle = (1 / depth.double()).sum() / 2
    below = torch.zeros_like(middle)
    if not depth.is_cuda:
        depth, below = _around_middle(depth, middle)
    ordered = depth.sort().values
    weight = below + (1 / ordered.double()).cumsum(dim=0)
    return ordered[(weight < middle).sum().clamp(max=len(ordered) - 1)]


def _around_middle(depth: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
    """Return those depths that share the upper half of their bits with the weighted median, and the weight below them.

    Sorting 24 million depths would take most of the time of scoring them. Positive float32 numbers have the order of
    their bits read as integers, so the upper halves are weighed first. A GPU sorts fast, and adds in no fixed order.
    """
    upper = depth.float().view(torch.int32) >> 16
    up_to = torch.bincount(upper, 1 / depth.double()).cumsum(dim=0)
    chosen = (up_to < middle).sum().clamp(max=len(up_to) - 1)
    return depth[upper == chosen], torch.where(chosen > 0, up_to[chosen - 1], 0.0)
