"""FLUX.2 klein: latents of two by two pixels that a batch norm has normalised, and four-fold places."""
