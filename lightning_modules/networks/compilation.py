"""Whether and how torch.compile translates the parts of a network."""

from dataclasses import dataclass

import torch
from torch import nn

from geometry.errors import InputError


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

    Raises:
        InputError: There is no such backend or mode.
    """

    mode: str = "default"
    backend: str = "inductor"
    dynamic: bool | None = None

    def __post_init__(self) -> None:
        backends = sorted(torch.compiler.list_backends(exclude_tags=()))
        if self.backend not in backends:
            raise InputError(f"there is no compiler backend {self.backend!r}; choose one of {', '.join(backends)}.")
        if self.backend != "inductor" and self.mode != "default":
            raise InputError(f"only the backend inductor has modes; {self.backend} takes mode: default.")
        modes = torch._inductor.list_mode_options()
        if self.mode not in modes:
            raise InputError(f"there is no compiler mode {self.mode!r}; choose one of {', '.join(modes)}.")

    def apply(self, module: nn.Module) -> None:
        """Compile a module in place.

        Args:
            module: the module; it is compiled when it is first called.
        """
        module.compile(mode=self.mode, backend=self.backend, dynamic=self.dynamic)
