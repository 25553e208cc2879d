"""The plan of a configuration: memory by phase, operations, time, and the largest micro-batch."""

import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from geometry.errors import InputError
from lightning_modules.estimator import Estimator
from lightning_modules.inference.loading import build_estimator
from lightning_modules.inference.run_config import base_of
from lightning_modules.networks.weightless import without_weights
from lightning_modules.planning.cards import Card
from lightning_modules.planning.ledger import Books
from lightning_modules.planning.published_bases import with_published
from lightning_modules.planning.quantized_shapes import pack_frozen_linears
from lightning_modules.planning.setting import Setting
from lightning_modules.planning.simulated_step import simulate

# Phases that are no part of a training step's operations.
_NOT_TRAINED = ("start", "validation")
_QUANTIZATION = "quantization"


@dataclass(frozen=True)
class Plan:
    """What a configuration needs on each of its devices.

    Attributes:
        setting: the configuration.
        books: of a step with its micro-batch.
        num_weights: weights of the denoiser.
        num_trained: weights that train.
    """

    setting: Setting
    books: Books
    num_weights: int
    num_trained: int

    @property
    def base(self) -> str:
        """The base model."""
        return base_of({"model": self.setting.model})

    @property
    def peak_bytes(self) -> int:
        """The most memory that tensors take at once."""
        return self.books.peak_bytes

    @property
    def flops_per_image(self) -> float:
        """Operations for an image of the largest size, with what is recomputed."""
        return sum(self._per_image(self.books.flops).values())

    @property
    def flops_by_phase(self) -> dict[str, float]:
        """Operations for an image of the largest size, by phase."""
        return self._per_image(self.books.flops)

    def fits(self, card: Card) -> bool:
        """Return whether a card has room for it."""
        return self.peak_bytes <= card.room_bytes

    def seconds_per_step(self, card: Card, utilisation: float) -> float | None:
        """Return the time of an optimiser step, or None where nothing is known of the card's speed.

        Args:
            card: the GPU.
            utilisation: share of what its maker states that is reached.
        """
        if card.half_tflops is None or card.tf32_tflops is None or card.float32_tflops is None:
            return None
        flops, convolutions = self.flops_per_image, sum(self._per_image(self.books.convolution_flops).values())
        if self.setting.situation.precision == "32-true":
            tf32 = self.setting.tf32
            products = card.tf32_tflops if tf32 == "all" else card.float32_tflops
            rate = card.float32_tflops if tf32 == "none" else card.tf32_tflops
            seconds = convolutions / rate + (flops - convolutions) / products
        else:
            seconds = flops / card.half_tflops
        height, width = self.setting.situation.image_size
        images = self.setting.images_per_step / self.setting.devices
        return seconds * images * self.setting.mean_pixels / (height * width) / utilisation / 1e12

    def _per_image(self, flops: dict[str, int]) -> dict[str, float]:
        situation = self.setting.situation
        count = situation.batch_size
        return {phase: number / count for phase, number in flops.items() if phase not in _NOT_TRAINED}


@lru_cache(maxsize=64)
def make_plan(setting: Setting) -> Plan:
    """Return the plan of a setting. Nothing is downloaded that is large, and nothing computed.

    What was planned before is not planned again.

    Args:
        setting: the configuration.

    Raises:
        InputError: its model cannot be built or not sharded as it says, or the architecture of its base is not known.
    """
    is_quantized = bool(_network_options(setting.model).get(_QUANTIZATION))
    if is_quantized and setting.is_sharded:
        raise InputError(
            "weights of 4 bits are not sharded over devices: leave out network.quantization, or trainer.strategy "
            "FullySharded."
        )
    estimator = build_without_weights(setting.model)
    model = estimator.network.denoiser.model
    counted = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in estimator.parameters() if weight.requires_grad)
    if is_quantized:
        pack_frozen_linears(estimator.network.denoiser.sharded_blocks())
    return Plan(setting, simulate(estimator, setting.situation), counted, trained)


def build_without_weights(model: dict[str, Any]) -> Estimator:
    """Return an estimator without weights, from the section of a configuration.

    Args:
        model: ``class_path`` and ``init_args``.

    Raises:
        InputError: it cannot be built, or the architecture of its base is not known.
    """
    options = _network_options(model)
    kept = {name: value for name, value in options.items() if name not in (_QUANTIZATION, "compile")}
    network = {**model["init_args"]["network"], "init_args": kept}
    plain = {**model, "init_args": {**model["init_args"], "network": network, "init_from": None}}
    with tempfile.TemporaryDirectory() as folder, without_weights():
        estimator = build_estimator(with_published(plain, Path(folder)))
        for loss in estimator.task.losses:
            loss.attach(estimator.network)
    return estimator


def _network_options(model: dict[str, Any]) -> dict[str, Any]:
    base_of({"model": model})  # says what is wrong with a section that has no network
    return model["init_args"]["network"]["init_args"]


def largest_micro_batch(plan: Plan, card: Card) -> int:
    """Return how many images a micro-batch can have on a card; 0 if not even one fits.

    Memory is a line in the number of images, through two plans, or nearly so.

    Args:
        plan: the plan of the configuration.
        card: the GPU.
    """
    size = plan.setting.situation.batch_size
    other = 1 if size > 1 else 2
    another = make_plan(plan.setting.with_situation(batch_size=other, val_batch_size=0))
    fewest = None
    for phase, bytes_here in plan.books.phase_bytes.items():
        bytes_there = another.books.phase_bytes.get(phase)
        if bytes_there is None or phase == "validation":
            continue
        slope = (bytes_here - bytes_there) / (size - other)
        start = bytes_here - slope * size
        most = (card.room_bytes - start) // slope if slope > 0 else (0 if start > card.room_bytes else None)
        fewest = most if fewest is None else fewest if most is None else min(fewest, most)
    return max(0, int(fewest or 0))
