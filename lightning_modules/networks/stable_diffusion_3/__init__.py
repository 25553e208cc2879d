"""Stable Diffusion 3 and 3.5: transformers of image and text, flow matching, latents of 16 channels."""
