"""Video: frames in, frames of one scale and shift out."""
