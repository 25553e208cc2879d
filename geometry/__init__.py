"""What data modules and estimators share: maths on tensors, and the border that files from elsewhere have to pass.

Imports torch alone; ``geometry.files.images``, which is imported where images are opened, also Pillow and simplejpeg.
"""

from geometry.alignment import align_scale_shift, alignment_is_defined
from geometry.batch import GeometryBatch
from geometry.camera import (
    camera_from_hypersim,
    camera_from_intrinsics,
    crop_camera,
    depth_from_ray_distance,
    hypersim_nominal_intrinsics,
    pixel_rays,
    ray_distance_from_depth,
    resize_camera,
    unproject,
)
from geometry.colorize import colorize_depth, colorize_error, colorize_normals
from geometry.errors import InputError
from geometry.normals import (
    convert_frame,
    face_camera,
    flip_horizontal,
    normals_from_depth,
    normals_from_depth_finite_differences,
    renormalize,
)

__all__ = [
    "GeometryBatch",
    "InputError",
    "align_scale_shift",
    "alignment_is_defined",
    "camera_from_hypersim",
    "camera_from_intrinsics",
    "colorize_depth",
    "colorize_error",
    "colorize_normals",
    "convert_frame",
    "crop_camera",
    "depth_from_ray_distance",
    "face_camera",
    "flip_horizontal",
    "hypersim_nominal_intrinsics",
    "normals_from_depth",
    "normals_from_depth_finite_differences",
    "pixel_rays",
    "ray_distance_from_depth",
    "renormalize",
    "resize_camera",
    "unproject",
]
