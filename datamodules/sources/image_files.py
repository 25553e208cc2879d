"""Images and depth maps in the files of raw data sets."""

from pathlib import Path

import cv2
import numpy as np

from geometry.errors import InputError

Array = np.ndarray


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR_RGB, remedy: str = "Copy or export it again.") -> Array:
    """Return the image in a file.

    Args:
        path: file of a format that OpenCV decodes.
        flags: how OpenCV decodes it. By default, 16 bits are reduced to 8, grey becomes colour, and alpha is dropped.
        remedy: sentence that tells a user how to get a whole file.

    Returns:
        (H,W,3) uint8, RGB; what the file holds with ``cv2.IMREAD_UNCHANGED``.

    Raises:
        InputError: the file is missing or no image.
    """
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing. Every frame needs its image and its depth.") from error
    except (OSError, cv2.error) as error:
        raise InputError(f"{path} cannot be read ({error}). {remedy}") from error
    if image is None:
        raise InputError(f"{path} is no complete image that can be decoded. {remedy}")
    return image
