"""The earlier name of ``image_inputs``, for programs that read images by it."""

from lightning_modules.inference.image_inputs import read_image as read_picture

__all__ = ["read_picture"]
