"""Stable Diffusion XL: a UNet that is also told a pooled prompt and the sizes of the image."""
