"""Cameras, viewing rays, and the two meanings of "distance" that raw data mix up.

Convention (the whole file):
    Camera frame: x right, y up, z toward the viewer; the camera looks along -z. Metres.
    Pixel coordinates: u to the right, v down, in pixels. The centre of the pixel in column 0, row 0 lies at
    ``(pixel_center, pixel_center)``: 0.5 for Hypersim and the synthetic scenes, 0.0 for Virtual KITTI.
    A camera is one 3x3 matrix, ``camera_from_pixel``: it maps (u, v, 1) to a direction in the camera frame.
    A ray is scaled so that its z is -1. Hence ``point = depth * ray`` and ``ray distance = depth * |ray|``.
"""

import torch
from torch import Tensor

from geometry.errors import InputError
from geometry.host_values import values_like

HYPERSIM_FOCAL_LENGTH_PX = 886.81
HYPERSIM_WIDTH_PX = 1024


def camera_from_intrinsics(intrinsics: Tensor) -> Tensor:
    """Return the camera of a pinhole with the given intrinsic matrix.

    Convention:
        ``intrinsics`` follows OpenCV (x right, y down, z forward); the result has our axes (y up, z backward).
        With focal length 100 px and the principal point at (50, 40), pixel (150, 40) looks along (1, 0, -1)
        and pixel (50, 140) along (0, -1, -1): down in the image is down in the world.

    Args:
        intrinsics: (...,3,3) float, K of the pinhole: K (x, y, z) is proportional to (u, v, 1). Pixels.

    Returns:
        (...,3,3), same dtype, ``camera_from_pixel``.

    Raises:
        InputError: the matrix cannot be inverted, for instance because a focal length is 0.
    """
    inverse = _invert(intrinsics, "the intrinsic matrix")
    return inverse * values_like([[1.0], [-1.0], [-1.0]], inverse)


def camera_from_hypersim(m_cam_from_uv: Tensor, height: int, width: int) -> Tensor:
    """Return the camera of a Hypersim scene, tilt-shift lenses included.

    Convention:
        Hypersim's uv run from -1 to 1 between the outer edges of the image, u to the right and v up. Pixel centres
        lie at +0.5, so pass ``pixel_center=0.5`` to ``pixel_rays``.
        With ``m_cam_from_uv = diag(0.5, 0.5, -1)``, the corner (u, v) = (0 px, 0 px) looks along (-0.5, 0.5, -1).

    Args:
        m_cam_from_uv: (...,3,3) float, ``M_cam_from_uv`` of the scene in ``metadata_camera_parameters.csv``.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        (...,3,3), same dtype, ``camera_from_pixel`` for images of that size.

    Source:
        apple/ml-hypersim, ``metadata_camera_parameters.csv`` and the project's note on camera parameters.
    """
    uv_from_pixel = values_like([[2.0 / width, 0.0, -1.0], [0.0, -2.0 / height, 1.0], [0.0, 0.0, 1.0]], m_cam_from_uv)
    return m_cam_from_uv @ uv_from_pixel


def hypersim_nominal_intrinsics(height: int, width: int) -> Tensor:
    """Return the pinhole that fits most Hypersim scenes, for frames whose own camera is not known.

    Convention:
        886.81 px of focal length at width 1024, scaled with the width; square pixels; the principal point at the
        centre of the image, (512, 384) at 768x1024. Pixel centres at +0.5.

    Args:
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        (3,3) float64, K in pixels.

    Source:
        The commonly used constant for Hypersim's 60 degree lens. Scenes differ: prefer ``camera_from_hypersim``.
    """
    focal_length_px = HYPERSIM_FOCAL_LENGTH_PX * width / HYPERSIM_WIDTH_PX
    rows = [[focal_length_px, 0.0, width / 2], [0.0, focal_length_px, height / 2], [0.0, 0.0, 1.0]]
    return torch.tensor(rows, dtype=torch.float64)


def pixel_rays(camera_from_pixel: Tensor, height: int, width: int, pixel_center: float = 0.5) -> Tensor:
    """Return the viewing ray through the centre of every pixel.

    Convention:
        z is -1 everywhere, so ``depth * ray`` is the point seen and ``|ray|`` is ray distance over depth.
        For the nominal Hypersim camera the ray of the top-left pixel is (-0.5768, 0.4324, -1).

    Args:
        camera_from_pixel: (...,3,3) float.
        height: image height in pixels.
        width: image width in pixels.
        pixel_center: coordinate of the centre of the first pixel, 0.5 or 0.

    Returns:
        (...,3,H,W), same dtype.

    Raises:
        InputError: some pixel would look backward (z >= 0), as it does when the camera's axes are another convention's.
    """
    camera = camera_from_pixel.double()
    u = torch.arange(width, dtype=torch.float64, device=camera.device) + pixel_center
    v = torch.arange(height, dtype=torch.float64, device=camera.device) + pixel_center
    in_u, in_v, constant = (column[..., None, None] for column in camera.unbind(-1))
    directions = in_u * u + in_v * v[:, None] + constant
    if not bool((directions[..., 2, :, :] < 0).all()):
        raise InputError(
            "camera_from_pixel makes some pixels look backward (z >= 0). The camera must look along -z (x right, "
            "y up): build it with camera_from_intrinsics or camera_from_hypersim, for the size of this image."
        )
    return (directions / -directions[..., 2:, :, :]).to(camera_from_pixel.dtype)


def depth_from_ray_distance(ray_distance: Tensor, rays: Tensor) -> Tensor:
    """Turn the distance to the camera's centre into planar depth.

    Convention:
        depth = ray distance / |ray|, never larger than the ray distance. A point 5 m away seen along
        (0.75, 0, -1), whose length is 1.25, has depth 4 m. Infinities and NaN pass through.

    Args:
        ray_distance: (...,1,H,W) float, metres along the ray (Hypersim's ``depth_meters``).
        rays: (...,3,H,W) float from ``pixel_rays``.

    Returns:
        (...,1,H,W) planar depth in metres.
    """
    return ray_distance / _ray_length(rays)


def ray_distance_from_depth(depth: Tensor, rays: Tensor) -> Tensor:
    """Turn planar depth into the distance to the camera's centre; the inverse of ``depth_from_ray_distance``.

    Convention:
        ray distance = depth * |ray|. Depth 4 m along (0.75, 0, -1) is 5 m away.

    Args:
        depth: (...,1,H,W) float, planar depth in metres.
        rays: (...,3,H,W) float from ``pixel_rays``.

    Returns:
        (...,1,H,W) distance along the ray in metres.
    """
    return depth * _ray_length(rays)


def unproject(depth: Tensor, rays: Tensor) -> Tensor:
    """Return the 3-D point that every pixel sees.

    Convention:
        point = depth * ray in the camera frame (x right, y up, z toward the viewer): its z is -depth.
        Depth 4 m along (0.75, 0, -1) is the point (3, 0, -4).

    Args:
        depth: (...,1,H,W) float, planar depth in metres.
        rays: (...,3,H,W) float from ``pixel_rays``.

    Returns:
        (...,3,H,W) points in metres.
    """
    return depth * rays


def crop_camera(camera_from_pixel: Tensor, top: int, left: int) -> Tensor:
    """Return the camera of an image from which rows above ``top`` and columns before ``left`` were cut.

    Convention:
        Pixel (u, v) of the crop is pixel (u + left, v + top) of the original, whatever ``pixel_center`` is.
        Cutting at the right and at the bottom changes nothing. Negative values describe padding.

    Args:
        camera_from_pixel: (...,3,3) float, camera of the original image.
        top: rows cut off at the top.
        left: columns cut off at the left.

    Returns:
        (...,3,3), same dtype.
    """
    original_from_crop = values_like([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]], camera_from_pixel)
    return camera_from_pixel @ original_from_crop


def resize_camera(
    camera_from_pixel: Tensor, old_size: tuple[int, int], new_size: tuple[int, int], pixel_center: float = 0.5
) -> Tensor:
    """Return the camera of a resized image.

    Convention:
        The outer edges of the image stay where they are (``align_corners=False``). ``pixel_center`` is kept.
        Halving a 4x4 image with pixel_center 0.5 maps u = 0.5 to 1.0; with pixel_center 0 it maps u = 0 to 0.5:
        both are the border between the first two old pixels.

    Args:
        camera_from_pixel: (...,3,3) float, camera of the original image.
        old_size: (height, width) of the original image in pixels.
        new_size: (height, width) of the resized image in pixels.
        pixel_center: coordinate of the centre of the first pixel in both images, 0.5 or 0.

    Returns:
        (...,3,3), same dtype.
    """
    scale_v, scale_u = old_size[0] / new_size[0], old_size[1] / new_size[1]
    edge = pixel_center - 0.5
    rows = [[scale_u, 0.0, edge * (1 - scale_u)], [0.0, scale_v, edge * (1 - scale_v)], [0.0, 0.0, 1.0]]
    return camera_from_pixel @ values_like(rows, camera_from_pixel)


def flip_camera(camera_from_pixel: Tensor, width: int, pixel_center: float = 0.5) -> Tensor:
    """Return the camera of an image that is mirrored left to right, in a scene that is mirrored, too.

    Convention:
        Pixel (u, v) shows what pixel (width - 1 + 2 pixel_center - u, v) showed, and its ray's x has the other sign.

    Args:
        camera_from_pixel: (...,3,3) float, camera of the original image.
        width: of the image in pixels.
        pixel_center: coordinate of the centre of the first pixel, 0.5 or 0.

    Returns:
        (...,3,3), same dtype.
    """
    last = width - 1 + 2 * pixel_center
    original_from_flipped = values_like([[-1.0, 0.0, last], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], camera_from_pixel)
    return values_like([-1.0, 1.0, 1.0], camera_from_pixel)[:, None] * (camera_from_pixel @ original_from_flipped)


def recenter_camera(camera_from_pixel: Tensor, old_center: float, new_center: float) -> Tensor:
    """Return the same camera for pixel coordinates that count from elsewhere.

    Args:
        camera_from_pixel: (...,3,3) float.
        old_center: coordinate of the centre of the first pixel so far, 0.5 or 0.
        new_center: coordinate of the centre of the first pixel from now on.

    Returns:
        (...,3,3), same dtype.
    """
    shift = old_center - new_center
    return camera_from_pixel @ values_like([[1.0, 0.0, shift], [0.0, 1.0, shift], [0.0, 0.0, 1.0]], camera_from_pixel)


def _ray_length(rays: Tensor) -> Tensor:
    return rays.square().sum(dim=-3, keepdim=True).sqrt()


def _invert(matrix: Tensor, name: str) -> Tensor:
    """Invert in float64, so that a float32 camera loses nothing to the inversion."""
    inverse, info = torch.linalg.inv_ex(matrix.double())
    if bool((info != 0).any()) or not bool(inverse.isfinite().all()):
        raise InputError(f"{name} cannot be inverted: focal lengths must be finite and not 0, got {matrix.tolist()}.")
    return inverse.to(matrix.dtype)
