"""Several predictions of one image made into one, by the functions of diffusers' Marigold pipelines."""

import torch
from torch import Tensor


def ensemble_depth(members: Tensor) -> Tensor:
    """Return the pixelwise median after a scale and a shift per member that bring them closest together.

    Convention:
        The result of each image spans [0, 1]: only its shape counts, not its scale and shift.

    Args:
        members: (N,B,1,H,W) float in [0, 1], N predictions of B images.

    Returns:
        (B,1,H,W) in [0, 1].
    """
    from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthPipeline

    return torch.cat([MarigoldDepthPipeline.ensemble_depth(image)[0] for image in members.unbind(dim=1)])


def ensemble_normals(members: Tensor) -> Tensor:
    """Return, pixel by pixel, the member that is closest to the mean direction.

    Args:
        members: (N,B,3,H,W) float, N predictions of B images, unit vectors.

    Returns:
        (B,3,H,W) unit vectors.
    """
    from diffusers.pipelines.marigold.pipeline_marigold_normals import MarigoldNormalsPipeline

    images = members.unbind(dim=1)
    return torch.cat([MarigoldNormalsPipeline.ensemble_normals(image, output_uncertainty=False)[0] for image in images])
