"""One optimiser step of an estimator that has no weights: what lives when, and what is computed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from geometry.batch import DatasetInfo, GeometryBatch, Target
from geometry.errors import InputError, one_line
from geometry.torch_internals import fake_ranks, fake_tensors
from lightning_modules.estimator import Estimator
from lightning_modules.losses.teacher import Teacher
from lightning_modules.networks.sharding import reshard, unshard
from lightning_modules.planning.gpu_casts import AnsweringZero, gpu_casts
from lightning_modules.planning.ledger import Books, Ledger

TRAINED, FROZEN, STATES, GRADIENTS = "weights that train", "frozen weights", "optimiser states", "gradients"
AVERAGE, BUCKETS, BATCH = "average of the weights", "buckets of gradients", "batch"
_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_WHOLE_HALF = {"bf16-true": torch.bfloat16, "16-true": torch.float16}


@dataclass(frozen=True)
class Situation:
    """How a step is trained.

    Attributes:
        image_size: (height, width) in pixels.
        batch_size: images per micro-batch.
        micro_batches: micro-batches per step on a device.
        precision: the trainer's.
        val_batch_size: images per batch of validation; 0 validates nothing.
        average_on_device: a moving average of the weights is kept beside them.
        buckets: further copies of the gradients: 0 on one device, 1 in DDP, of which the gradients are views or not.
        gradients_are_buckets: the gradients are views of the buckets.
        shards: devices over which what trains is sharded (FSDP2); 1 is not at all.
    """

    image_size: tuple[int, int]
    batch_size: int
    micro_batches: int = 1
    precision: str = "32-true"
    val_batch_size: int = 0
    average_on_device: bool = False
    buckets: int = 0
    gradients_are_buckets: bool = False
    shards: int = 1


def simulate(estimator: Estimator, situation: Situation, for_gpu: bool = True, fake: bool = True) -> Books:
    """Return the books of an optimiser step with its last micro-batch, and of a batch of validation.

    The estimator cannot be used for anything afterwards.

    Args:
        estimator: on the CPU or without weights.
        situation: how it is trained.
        for_gpu: Tensors stand for those of a GPU; else for those of a CPU.
        fake: Compute nothing; else the step is taken with real tensors.
    """
    known = {"32-true", *_HALF, *_WHOLE_HALF}
    if situation.precision not in known:
        raise InputError(f"trainer.precision {situation.precision} cannot be planned; choose one of {sorted(known)}.")
    parts = [estimator, *_teachers(estimator)]
    with ExitStack() as contexts:
        mesh = contexts.enter_context(fake_ranks(situation.shards)) if situation.shards > 1 else None
        if fake:
            contexts.enter_context(fake_tensors())
            contexts.enter_context(AnsweringZero())
            for part in parts:
                _give_shapes_alone(part)
        if situation.precision in _WHOLE_HALF:
            estimator.to(_WHOLE_HALF[situation.precision])
        if mesh is not None:
            estimator.shard(mesh)
        if for_gpu:
            contexts.enter_context(gpu_casts())
        ledger = Ledger({module: name for name, module in estimator.named_modules()}, for_gpu)
        with ledger.open() as books:
            _Step(estimator, situation, ledger).run(parts)
    return books


class _Step:
    """An optimiser step, phase by phase."""

    def __init__(self, estimator: Estimator, situation: Situation, ledger: Ledger) -> None:
        self.estimator, self.situation, self.ledger = estimator, situation, ledger
        self.named = [(name, weight) for name, weight in estimator.named_parameters() if weight.requires_grad]
        self.weights = [weight for _, weight in self.named]

    def run(self, parts: list[nn.Module]) -> None:
        """Take the step; states of the optimiser are there from the beginning, as in all steps but the first."""
        for part in parts:
            for name, tensor in (*part.named_parameters(), *part.named_buffers()):
                self.ledger.book(tensor, TRAINED if tensor.requires_grad else FROZEN, name)
        optimizer = self._ready_optimizer()
        average = self._copies(AVERAGE) if self.situation.average_on_device else []
        buckets = self._copies(BUCKETS) if self.situation.buckets else []
        if self.situation.gradients_are_buckets:
            for weight, bucket in zip(self.weights, buckets, strict=True):
                weight.grad = bucket
        elif self.situation.micro_batches > 1:
            self._begin_gradients()
        self.estimator.network.train()
        self._mark_phases()
        self._micro_batch()
        with self.ledger.in_phase("optimiser step"), torch.no_grad():
            norm = torch.nn.utils.get_total_norm([weight.grad for weight in self.weights if weight.grad is not None])
            torch.nn.utils.clip_grads_with_norm_(self.weights, 1.0, norm)
            optimizer.step()
            for mean, weight in zip(average, self.weights, strict=False):
                mean.lerp_(weight, 0.001)
        optimizer.zero_grad()
        if self.situation.val_batch_size:
            self._validate()

    def _ready_optimizer(self) -> Optimizer:
        """Return the optimiser with its states, as it is after a step."""
        ledger = self.ledger
        with ledger.in_phase("start"), torch.no_grad():
            optimizer = self.estimator.make_optimizer(iter(self.weights))
            for weight in self.weights:
                weight.grad = torch.zeros_like(weight)
            try:
                optimizer.step()
            except Exception as error:  # whatever an optimiser does that wants a real GPU
                raise InputError(
                    f"the optimiser {type(optimizer).__name__} cannot be planned ({one_line(error, 200)}). Give "
                    "another one, such as torch.optim.AdamW."
                ) from error
            optimizer.zero_grad()
        for name, weight in self.named:
            for state in optimizer.state[weight].values():
                if isinstance(state, Tensor):
                    ledger.book(state, STATES, name)
        return optimizer

    def _begin_gradients(self) -> None:
        """Give weights the gradients that a micro-batch before left: the first one of a step needs the least memory."""
        with self.ledger.in_phase("start"):
            for name, weight in self.named:
                weight.grad = torch.zeros_like(weight)
                self.ledger.book(weight.grad, GRADIENTS, name)

    def _micro_batch(self) -> None:
        ledger, situation = self.ledger, self.situation
        with ledger.in_phase("loss"):
            batch = make_batch(self.estimator, situation.batch_size, situation.image_size, situation.precision)
            for tensor in (batch.image, *(each for target in batch.targets.values() for each in target)):
                ledger.book(tensor, BATCH)
            half = _HALF.get(situation.precision)
            with torch.autocast("cpu", half) if half else nullcontext():
                loss, _ = self.estimator.training_loss(batch, list(range(situation.batch_size)))
        with ledger.in_phase("backward"):
            loss.backward()
        for name, weight in self.named:
            if weight.grad is not None and not situation.gradients_are_buckets:
                ledger.book(weight.grad, GRADIENTS, name)

    def _validate(self) -> None:
        estimator, situation = self.estimator, self.situation
        estimator.network.eval()
        half = _HALF.get(situation.precision)
        with self.ledger.in_phase("validation"), torch.no_grad(), _unsharded(estimator.network):
            batch = make_batch(estimator, situation.val_batch_size, situation.image_size, situation.precision)
            with torch.autocast("cpu", half) if half else nullcontext():
                network = estimator.network
                if network.switch is not None:
                    estimator.predict_batch(batch.image, batch, [0] * len(batch))
                    return
                latent = network.encode(batch.image)
                latent = network.model_output(network.denoiser.input_of(latent, latent), network.timestep)
                estimator.task.predict(network.decode(latent))

    def _mark_phases(self) -> None:
        network: Any = self.estimator.network
        for phase, method in (("encode", "encode"), ("denoise", "model_output"), ("decode", "decode")):
            setattr(network, method, self.ledger.marking(phase, getattr(network, method), "loss"))

    def _copies(self, kind: str) -> list[Tensor]:
        """Return memory of the size of every weight that trains."""
        copies = [torch.empty_like(weight, requires_grad=False) for weight in self.weights]
        for (name, _), copy in zip(self.named, copies, strict=True):
            self.ledger.book(copy, kind, name)
        return copies


@contextmanager
def _unsharded(network: nn.Module) -> Iterator[None]:
    """Keep weights unsharded, as validations do."""
    unshard(network)
    try:
        yield
    finally:
        reshard(network)


def make_batch(estimator: Estimator, num_images: int, size: tuple[int, int], precision: str) -> GeometryBatch:
    """Return a batch of zeros.

    Args:
        estimator: whose truth it holds.
        num_images: number of images.
        size: (height, width) in pixels.
        precision: the trainer's.
    """
    dtype = _WHOLE_HALF.get(precision, torch.float32)
    mask = torch.ones(num_images, 1, *size, dtype=torch.bool)
    kinds = estimator.task.modalities
    targets = {kind.name: Target(torch.ones(num_images, kind.num_channels, *size), mask.clone()) for kind in kinds}
    return GeometryBatch(
        image=torch.zeros(num_images, 3, *size, dtype=dtype),
        targets=targets,
        key=[str(number) for number in range(num_images)],
        dataset=DatasetInfo("plan"),
        camera=torch.eye(3).expand(num_images, -1, -1),
    )


def _teachers(estimator: Estimator) -> list[nn.Module]:
    """Return the frozen models that losses compare features with."""
    found = (value for loss in estimator.task.losses for value in vars(loss).values() if isinstance(value, Teacher))
    return [teacher.model for teacher in found if teacher.model is not None]


def _give_shapes_alone(model: nn.Module) -> None:
    """Replace all tensors of a model by fake ones, within ``fake_tensors``."""
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            shape = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
            is_weight = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(shape, requires_grad=tensor.requires_grad) if is_weight else shape
        return made[id(tensor)]

    for module in model.modules():
        for place, name, tensor in _tensors_of(module):
            place[name] = fake(tensor)


def _tensors_of(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    for place in (vars(module)["_parameters"], vars(module)["_buffers"], vars(module)):
        for name, tensor in list(place.items()):
            if isinstance(tensor, Tensor):
                yield place, name, tensor
