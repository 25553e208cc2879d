"""The one contract between data modules and estimators."""

from typing import NotRequired, TypedDict

from torch import Tensor


class GeometryBatch(TypedDict):
    """Images of one data set, all of one size, with the geometry that is known about them.

    Convention:
        Depth is planar (along the optical axis, not along the ray) in metres.
        Normals live in the camera frame x right, y up, z toward the viewer: a wall seen head-on is (0, 0, 1).
        A test batch may hold images of another size than the geometry, whose size the prediction then takes, and
        normals without depth.

    Attributes:
        image: (B,3,H,W) float32, sRGB in [-1, 1].
        depth: (B,1,H,W) float32, planar depth in metres, 0 where unknown.
        valid_mask: (B,1,H,W) bool, depth is known and between the data set's near and far plane.
        normals: (B,3,H,W) float32 unit vectors, zero where unknown. Present only where the task asks for them.
        normals_mask: (B,1,H,W) bool, where ``normals`` may be used. Present together with ``normals``.
        key: sample ids, one per image.
        dataset: name of the data set that all images come from.
    """

    image: Tensor
    depth: Tensor
    valid_mask: Tensor
    normals: NotRequired[Tensor]
    normals_mask: NotRequired[Tensor]
    key: list[str]
    dataset: str
