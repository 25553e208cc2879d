"""Make ``checkpoints/tiny-stable-diffusion``, a toy Stable Diffusion for the demo, tests and miniature experiments."""
