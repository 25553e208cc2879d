"""Make the toy transformers beside ``checkpoints/tiny-stable-diffusion``."""
