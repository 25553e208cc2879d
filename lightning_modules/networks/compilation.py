"""Whether and how torch.compile translates the parts of a network."""

from dataclasses import dataclass, field
from types import MethodType
from typing import Any, Literal, get_args

import torch
from torch import nn

from geometry.errors import InputError
from lightning_modules.networks.upsampling import make_upsampling_compilable

Part = Literal["unet", "encoder", "decoder"]
Regions = Literal["whole", "blocks"]

# The blocks that a UNet or VAE of diffusers repeats, and where nearly all of its time goes. diffusers itself lists only
# the transformers of the UNet, and none of the VAE's.
_REPEATED_BLOCKS = ("ResnetBlock2D", "BasicTransformerBlock")

# How many translations of one region a run may need: eight image sizes, in training and in validation.
_VARIANTS = 16


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

        Raises:
            InputError: only blocks are to be compiled, and the part has none.
        """
        if part not in self.parts:
            return
        if self.regions == "whole":
            make_upsampling_compilable(module)
            module.compile(**self._options(num_regions=1))
        else:
            self._compile_blocks(part, module)

    def _compile_blocks(self, part: Part, module: nn.Module) -> None:
        listed = getattr(module, "_repeated_blocks", None) or ()
        blocks = [block for block in module.modules() if type(block).__name__ in {*listed, *_REPEATED_BLOCKS}]
        if not blocks:
            raise InputError(
                f"compile.regions: the {part} has no blocks that are known to be repeated; compile it as a whole."
            )
        options = self._options(len(blocks))
        if any(type(block).__name__ in listed for block in blocks):
            module.compile_repeated_blocks(**options)  # type: ignore[operator]
        for block in blocks:
            if block._compiled_call_impl is None:
                block.compile(**options)
            block.forward = MethodType(_forward_and_tell, block)

    def _options(self, num_regions: int) -> dict[str, Any]:
        """Return the arguments of torch.compile, with room for the translations of regions that share their code.

        Left at torch's 8, the limit would let all blocks but those of the first shapes run as they are.
        """
        limit = _VARIANTS * num_regions
        settings = torch._dynamo.config
        # torch has this cap for the whole process alone; it only has to be out of the way.
        settings.accumulated_recompile_limit = max(settings.accumulated_recompile_limit, 4 * limit)
        return {"mode": self.mode, "backend": self.backend, "dynamic": self.dynamic, "recompile_limit": limit}


def compiled_regions(module: nn.Module) -> list[nn.Module]:
    """Return the modules in a module that torch.compile is to translate, itself included.

    Args:
        module: the module.
    """
    return [region for region in module.modules() if region._compiled_call_impl is not None]


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
    """Run a block, and leave a note if that is not in a translation; a translation knows nothing of the note."""
    if not torch.compiler.is_compiling():
        vars(block)[_EAGER_RUN] = True
    return type(block).forward(block, *args, **kwargs)
