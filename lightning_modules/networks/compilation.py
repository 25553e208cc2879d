"""Whether and how torch.compile translates the parts of a network."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import nn

from geometry.errors import InputError

Part = Literal["unet", "encoder", "decoder"]
Regions = Literal["whole", "blocks"]

# The blocks that a UNet or VAE of diffusers repeats, and where nearly all of its time goes.
_REPEATED_BLOCKS = ("ResnetBlock2D", "BasicTransformerBlock")


def _all_parts() -> list[Part]:
    return list(get_args(Part))


@dataclass(frozen=True)
class Compilation:
    """Lets torch.compile translate parts of a network when they are first used.

    Modules are compiled in place, so that the names of weights in checkpoints stay what they are: a run may be
    resumed with or without.

    Args:
        mode: What the compiler aims at: default, reduce-overhead (CUDA graphs, for small inputs), max-autotune or
            max-autotune-no-cudagraphs.
        backend: Compiler of torch.compile.
        dynamic: Whether one translation serves all image sizes (true), or each size gets its own (false). By default,
            the second size makes the translation general.
        parts: What is compiled: any of unet, encoder and decoder.
        regions: Translate each part as a whole, which runs fastest, or only the blocks that it repeats, which takes the
            compiler less time.

    Raises:
        InputError: There is no such backend, mode, part or kind of regions.
    """

    mode: str = "default"
    backend: str = "inductor"
    dynamic: bool | None = None
    parts: list[Part] = field(default_factory=_all_parts)
    regions: Regions = "whole"

    def __post_init__(self) -> None:
        backends = sorted(torch.compiler.list_backends(exclude_tags=()))
        if self.backend not in backends:
            raise InputError(f"there is no compiler backend {self.backend!r}; choose one of {', '.join(backends)}.")
        if self.backend != "inductor" and self.mode != "default":
            raise InputError(f"only the backend inductor has modes; {self.backend} takes mode: default.")
        modes = torch._inductor.list_mode_options()
        if self.mode not in modes:
            raise InputError(f"there is no compiler mode {self.mode!r}; choose one of {', '.join(modes)}.")
        for given, choices, name in ((self.parts, Part, "parts"), ([self.regions], Regions, "regions")):
            for value in given:
                if value not in get_args(choices):
                    raise InputError(
                        f"compile.{name}: there is no {value!r}; choose from {', '.join(get_args(choices))}."
                    )

    def apply(self, part: Part, module: nn.Module) -> None:
        """Compile a part of a network in place, if it is one of those to compile.

        Args:
            part: which part it is.
            module: the part; it is compiled when it is first called.
        """
        if part not in self.parts:
            return
        for region in [module] if self.regions == "whole" else _repeated_blocks(module):
            region.compile(mode=self.mode, backend=self.backend, dynamic=self.dynamic)


def _repeated_blocks(module: nn.Module) -> Iterator[nn.Module]:
    return (block for block in module.modules() if type(block).__name__ in _REPEATED_BLOCKS)
