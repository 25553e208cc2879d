"""Compiled parts of a network prove that they compute what the plain ones do, before a run trusts them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from geometry.batch import GeometryBatch
from geometry.errors import InputError, one_line
from geometry.torch_internals import is_failed_compilation, tree_leaves, tree_map_only
from lightning_modules.networks.compilation import compiled_regions, forget_eager_runs, ran_eagerly
from lightning_modules.training.trained_module import TrainedModule

# How many roundings of the coarsest precision apart two right gradients may be. Measured by `python -m
# benchmarks.compiled_rounding` with inductor, torch 2.13.0, on a CPU (AMD EPYC): in the UNet of random weights at
# most 10.3 roundings of bfloat16 (0.081) and 9.3 of float16 (0.0091) between compiled and plain, and up to 12.7 from
# plain to float32; in decoder and encoder below 2. Two right results may thus be twice 12.7 apart; a wrong one is of
# order 1 away.
_ROUNDINGS = 32
_LEAST_TOLERANCE = 1e-3  # float32 sums in another order: 1e-6 for the toy, more for networks of hundreds of layers
_TF32_EPS = 2.0**-10


class CompilationProof(Callback):
    """Compares compiled parts with plain ones on the first batch of every shape, gradients included.

    Each part is given what it gets in a training step of that batch, so that its compilation is the one that training
    uses, and costs no time twice. Weights, gradients, optimiser and random numbers stay as they are.
    """

    def __init__(self) -> None:
        self._proven: set[tuple[int, ...]] = set()

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: TrainedModule, batch: GeometryBatch, batch_idx: int
    ) -> None:
        """Compare before the first step on images of a new shape."""
        self.check(pl_module, batch)

    def check(self, estimator: TrainedModule, batch: GeometryBatch) -> None:
        """Compare, if the estimator's network has compiled parts and the shape of the images is new.

        Args:
            estimator: an estimator in training.
            batch: a batch that it is about to train on.

        Raises:
            InputError: a compiled part computes something else than the plain one, or cannot be compiled here.
        """
        network = estimator.network
        shape = tuple(batch.image.shape)
        parts = {str(name): part for name, part in network.compilable_parts().items() if compiled_regions(part)}
        is_sharded = any(isinstance(parameter, DTensor) for parameter in network.parameters())
        # Ranks that share weights must compute in step, and meet a new shape each at another time.
        if not parts or shape in self._proven or (self._proven and is_sharded):
            return
        estimator.task.check_has_truth(batch)
        device = batch.image.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
            calls = _record(parts, lambda: _plain_forward(estimator, batch))
            results = {name: _compare(name, parts[name], call) for name, call in calls.items()}
        size = f"{shape[-2]}x{shape[-1]}"
        for name, result in results.items():
            result.judge(name, size)
            _say_how_much_is_compiled(name, parts[name], size, result)
        if all(result.is_finite for result in results.values()):
            self._proven.add(shape)


@dataclass
class _Call:
    """What a part of a network is called with in a training step."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    with_gradient: bool
    device: str
    autocast: torch.dtype | None

    def run(self, part: nn.Module) -> list[Tensor]:
        """Return on the CPU: the outputs, and the gradients of inputs and trained weights under a random cotangent."""
        leaves: list[Tensor] = [parameter for parameter in part.parameters() if parameter.requires_grad]

        def leaf(tensor: Tensor) -> Tensor:
            copy = tensor.detach().requires_grad_(tensor.requires_grad)
            if copy.requires_grad:
                leaves.append(copy)
            return copy

        autocast = torch.autocast(self.device, self.autocast, enabled=self.autocast is not None)
        with torch.set_grad_enabled(self.with_gradient), autocast:
            args, kwargs = tree_map_only(Tensor, leaf, (self.args, self.kwargs))
            outputs = [output for output in tree_leaves(part(*args, **kwargs)) if isinstance(output, Tensor)]
        found = [output.detach().float().cpu() for output in outputs]
        if not any(output.requires_grad for output in outputs):
            return found
        generator = torch.Generator().manual_seed(0)
        cotangents = [torch.randn(o.shape, generator=generator).to(o) for o in outputs]
        gradients = torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True)
        return found + [torch.zeros(()) if g is None else g.float().cpu() for g in gradients]

    def tolerance(self) -> float:
        """Return how far apart, relative to their norm, two right results may be in this precision."""
        dtypes = [tensor.dtype for tensor in tree_leaves((self.args, self.kwargs)) if isinstance(tensor, Tensor)]
        dtypes = [dtype for dtype in dtypes if dtype.is_floating_point] + [self.autocast or torch.float32]
        eps = max(torch.finfo(dtype).eps for dtype in dtypes)
        if self.device == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32):
            eps = max(eps, _TF32_EPS)
        return max(_LEAST_TOLERANCE, _ROUNDINGS * eps)


@dataclass
class _Result:
    """How far a compiled part is from the plain one: the largest error of any output or gradient."""

    error: float
    tolerance: float
    is_finite: bool

    def judge(self, part: str, size: str) -> None:
        if self.is_finite and not self.error <= self.tolerance:
            raise InputError(
                f"the compiled {part} is wrong with torch {torch.__version__} on images of {size} pixels (height x "
                f"width): outputs or gradients differ from those of the plain one by {self.error:.2g} of their norm, "
                f"where rounding explains {self.tolerance:.2g}. Leave {part} out of the network's compile.parts, or "
                "set compile to null."
            )


def _compare(name: str, part: nn.Module, call: _Call) -> _Result:
    with torch.compiler.set_stance("force_eager"), _without_dropout(part):
        plain = call.run(part)
    forget_eager_runs(part)
    torch.compiler.cudagraph_mark_step_begin()
    with _without_dropout(part):
        compiled = _run_compiled(name, part, call)
    norms = torch.stack([tensor.norm() for tensor in plain])
    errors = torch.stack([(a - b).norm() for a, b in zip(compiled, plain, strict=True)])
    # A gradient that is nearly 0 by nature is nothing but rounding; it is measured by the typical one.
    typical = norms.norm() / len(norms) ** 0.5
    error = (errors / (norms + typical).clamp(min=torch.finfo(torch.float32).tiny)).max().item()
    return _Result(error, call.tolerance(), bool(norms.isfinite().all()))


def _run_compiled(name: str, part: nn.Module, call: _Call) -> list[Tensor]:
    try:
        return call.run(part)
    except Exception as error:
        if not is_failed_compilation(error):
            raise
        raise InputError(
            f"the {name} cannot be compiled here ({one_line(error, 400)}). Mend that, or set the network's compile to "
            "null. A damaged cache of the compiler, which a killed run or a full disk leaves, is mended by removing "
            "its folder (TORCHINDUCTOR_CACHE_DIR; by default torchinductor_USER in the temporary folder)."
        ) from error


def _record(parts: Mapping[str, nn.Module], forward: Callable[[], None]) -> dict[str, _Call]:
    """Return what a forward pass calls each part with first; parts that it does not use are left out."""
    calls: dict[str, _Call] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            device = next(module.parameters()).device.type
            autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
            calls.setdefault(name, _Call(args, kwargs, torch.is_grad_enabled(), device, autocast))

        return hook

    handles = [part.register_forward_pre_hook(note(name), with_kwargs=True) for name, part in parts.items()]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _nothing(_: Any) -> Any:  # noqa: ANN401 - the backward pass that would want a tensor never comes
    return None


def _plain_forward(estimator: TrainedModule, batch: GeometryBatch) -> None:
    """Take the forward pass of a training step uncompiled, and without keeping what a backward pass would need."""
    keep_nothing = torch.autograd.graph.saved_tensors_hooks(_nothing, _nothing)
    step = estimator.trainer.precision_plugin.train_step_context()
    with torch.compiler.set_stance("force_eager"), keep_nothing, step:
        estimator.training_loss(batch, [0] * len(batch))


@contextmanager
def _without_dropout(part: nn.Module) -> Iterator[None]:
    """Compilers draw other random numbers than plain code, which would look like an error."""
    dropouts = [m for m in part.modules() if isinstance(m, nn.Dropout) and m.training and m.p > 0]
    for dropout in dropouts:
        dropout.eval()
    try:
        yield
    finally:
        for dropout in dropouts:
            dropout.train()


def _say_how_much_is_compiled(name: str, part: nn.Module, size: str, result: _Result) -> None:
    regions, eager = compiled_regions(part), ran_eagerly(part)
    blocks = f"{len(regions) - len(eager)} of {len(regions)} blocks of the {name}" if regions != [part] else name
    rank_zero_info(f"compiled for {size}: {blocks}; at most {result.error:.1g} from the plain {name}")
    if eager:
        kinds = ", ".join(sorted({type(block).__name__ for block in eager}))
        rank_zero_warn(f"{len(eager)} blocks of the {name} run uncompiled on images of {size} ({kinds})")
