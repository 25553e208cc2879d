"""The bases that recipes are compared on: a tiny UNet and a tiny transformer, each with the training that suits it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from lightning_modules import PretrainedNetwork
from lightning_modules.networks.latent_network import LatentNetwork
from research.paper_in_miniature.networks import TINY_BASE, RememberingStableDiffusion, RemembersLatents

BaseName = Literal["unet", "transformer"]


class RememberingPretrainedNetwork(RemembersLatents, PretrainedNetwork):
    """A ``PretrainedNetwork`` that remembers latents."""


@dataclass(frozen=True)
class TinyBase:
    """A base, and how all recipes are trained from it.

    Attributes:
        text: what it is, for people.
        network: makes the network, given the memory of latents and the recipe's options.
        steps: optimiser steps.
        learning_rate: largest learning rate.
    """

    text: str
    network: Callable[..., LatentNetwork]
    steps: int
    learning_rate: float


BASES: dict[BaseName, TinyBase] = {
    "unet": TinyBase(
        "the tiny Stable Diffusion",
        partial(RememberingStableDiffusion, base=str(TINY_BASE), channels_last=True),
        steps=120,
        learning_rate=1e-3,
    ),
    "transformer": TinyBase(
        "the tiny Stable Diffusion 3",
        partial(RememberingPretrainedNetwork, base=str(TINY_BASE.with_name("tiny-stable-diffusion-3"))),
        steps=160,
        learning_rate=2e-3,
    ),
}
