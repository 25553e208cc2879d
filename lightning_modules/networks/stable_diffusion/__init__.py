"""Stable Diffusion 1 and 2, and Marigold: the family of UNets under the empty prompt."""

from lightning_modules.networks.stable_diffusion.marigold_folder import MarigoldFolder
from lightning_modules.networks.stable_diffusion.network import StableDiffusion
from lightning_modules.networks.stable_diffusion.prompt import PromptLength

__all__ = ["MarigoldFolder", "PromptLength", "StableDiffusion"]
