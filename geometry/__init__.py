"""What data modules and estimators share: maths on tensors, and the border that files from elsewhere have to pass.

Imports torch alone; ``geometry.files.images``, which is imported where images are opened, also Pillow and simplejpeg.
"""

from geometry.alignment import align_scale_shift as align_scale_shift
from geometry.alignment import alignment_is_defined as alignment_is_defined
from geometry.batch import GeometryBatch as GeometryBatch
from geometry.camera import camera_from_hypersim as camera_from_hypersim
from geometry.camera import camera_from_intrinsics as camera_from_intrinsics
from geometry.camera import crop_camera as crop_camera
from geometry.camera import depth_from_ray_distance as depth_from_ray_distance
from geometry.camera import hypersim_nominal_intrinsics as hypersim_nominal_intrinsics
from geometry.camera import pixel_rays as pixel_rays
from geometry.camera import ray_distance_from_depth as ray_distance_from_depth
from geometry.camera import resize_camera as resize_camera
from geometry.camera import unproject as unproject
from geometry.colorize import colorize_depth as colorize_depth
from geometry.colorize import colorize_error as colorize_error
from geometry.colorize import colorize_normals as colorize_normals
from geometry.errors import InputError as InputError
from geometry.normals import convert_frame as convert_frame
from geometry.normals import face_camera as face_camera
from geometry.normals import flip_horizontal as flip_horizontal
from geometry.normals import normals_from_depth as normals_from_depth
from geometry.normals import normals_from_depth_finite_differences as normals_from_depth_finite_differences
from geometry.normals import renormalize as renormalize
