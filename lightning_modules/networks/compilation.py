"""Whether and how torch.compile compiles the parts of a network."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, Literal, get_args

import torch
from torch import nn

from geometry.errors import InputError, check_choice
from geometry.torch_internals import compiler_modes, is_to_be_compiled, raise_recompile_limit, recompile_option
from lightning_modules.networks.upsampling import make_upsampling_compilable

Regions = Literal["whole", "blocks"]

# How many compilations of one region a run may need: eight image sizes, in training and in validation.
_VARIANTS = 16


@dataclass(frozen=True)
class Compilation:
    """Lets torch.compile compile parts of a network when they are first used.

    Modules are compiled in place, so that the names of weights in checkpoints stay what they are: a run may be
    resumed with or without.

    Args:
        mode: What the compiler aims at: default, reduce-overhead (CUDA graphs, for small inputs), max-autotune or
            max-autotune-no-cudagraphs.
        backend: Compiler of torch.compile.
        dynamic: Whether one compilation serves all image sizes (true), or each size gets its own (false). By default,
            the second size makes the compilation general.
        parts: What is compiled: any of encoder, decoder and the denoiser, which is named unet or transformer as in
            diffusers. By default, all of them.
        regions: Compile each part as a whole, which runs fastest, or only the blocks that it repeats, which takes the
            compiler less time.

    Raises:
        InputError: There is no such backend, mode, part or kind of regions.
    """

    mode: str = "default"
    backend: str = "inductor"
    dynamic: bool | None = None
    parts: list[str] | None = None
    regions: Regions = "whole"

    def __post_init__(self) -> None:
        check_choice("compiler backend", self.backend, sorted(torch.compiler.list_backends(exclude_tags=())))
        if self.backend != "inductor" and self.mode != "default":
            raise InputError(f"only the backend inductor has modes; {self.backend} takes mode: default.")
        check_choice("compiler mode", self.mode, compiler_modes())
        if self.regions not in get_args(Regions):
            known = ", ".join(get_args(Regions))
            raise InputError(f"compile.regions: there is no {self.regions!r}; choose from {known}.")

    def apply(self, part: str, module: nn.Module, repeated_blocks: Collection[str] = ()) -> None:
        """Compile a part of a network in place, if it is one of those to compile.

        Args:
            part: which part it is.
            module: the part; it is compiled when it is first called.
            repeated_blocks: names of the classes of blocks that the part repeats.

        Raises:
            InputError: only blocks are to be compiled, and the part has none.
        """
        if self.parts is not None and part not in self.parts:
            return
        if self.regions == "whole":
            make_upsampling_compilable(module)
            module.compile(**self._options(num_regions=1))
        else:
            self._compile_blocks(part, [block for block in module.modules() if type(block).__name__ in repeated_blocks])

    def _compile_blocks(self, part: str, blocks: Sequence[nn.Module]) -> None:
        if not blocks:
            raise InputError(
                f"compile.regions: the {part} has no blocks that are known to be repeated; compile it as a whole."
            )
        options = self._options(len(blocks))
        for block in blocks:
            block.compile(**options)
            block.forward = MethodType(_forward_and_tell, block)

    def _options(self, num_regions: int) -> dict[str, Any]:
        """Return the arguments of torch.compile, with room for the compilations of regions that share their code.

        Left at torch's 8, the limit would let all blocks but those of the first shapes run as they are.
        """
        limit = _VARIANTS * num_regions
        # torch has this cap for the whole process alone; it only has to be out of the way.
        raise_recompile_limit(4 * limit)
        options = {"mode": self.mode, "backend": self.backend, "dynamic": self.dynamic}
        return options | recompile_option(limit)


def compiled_regions(module: nn.Module) -> list[nn.Module]:
    """Return the modules in a module that torch.compile is to compile, itself included.

    Args:
        module: the module.
    """
    return [region for region in module.modules() if is_to_be_compiled(region)]


def forget_eager_runs(module: nn.Module) -> None:
    """Begin to note anew which blocks run as they are.

    Args:
        module: a part of a network whose blocks are compiled.
    """
    for region in compiled_regions(module):
        vars(region).pop(_EAGER_RUN, None)


def ran_eagerly(module: nn.Module) -> list[nn.Module]:
    """Return the blocks that ran as they are since ``forget_eager_runs``, although they should be compiled.

    Args:
        module: a part of a network whose blocks are compiled.
    """
    return [region for region in compiled_regions(module) if _EAGER_RUN in vars(region)]


_EAGER_RUN = "_ran_eagerly"


def _forward_and_tell(block: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Run a block, and leave a note if that is not in compiled code; compiled code knows nothing of the note."""
    if not torch.compiler.is_compiling():
        vars(block)[_EAGER_RUN] = True
    return type(block).forward(block, *args, **kwargs)
