"""What a plan needs of a run's configuration, beside its model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geometry.contract import MakesItsData
from geometry.errors import InputError
from geometry.files.json_text import read_json_file
from geometry.files.limits import MAX_MANIFEST_BYTES, MAX_SAMPLE_PIXELS
from lightning_modules.inference.run_config import read_config
from lightning_modules.planning.run_options import (
    batch_sizes_of,
    count,
    data_class,
    devices_of,
    precision_of,
    section,
    steps_of,
    strategy_of,
)
from lightning_modules.planning.simulated_step import Situation
from lightning_modules.shipped import find_config

# The sizes that data sets of these names are prepared at unless asked otherwise; any other is taken for the first.
_USUAL_SIZES = {"hypersim": (480, 640), "virtual_kitti": (352, 1216)}
_PAPER_STEPS = 20_000


@dataclass(frozen=True)
class Setting:
    """A configuration to plan.

    Attributes:
        model: its section of the model.
        situation: how a step is trained, at the largest size.
        devices: GPUs, over all nodes.
        num_nodes: machines that these are spread over.
        devices_are_assumed: the configuration leaves their number to the machine; one on each node is assumed.
        mean_pixels: pixels of an image in the mean over the data sets.
        sizes_are_assumed: no prepared data set said how large its images are.
        tf32: the option of this name.
        max_steps: optimiser steps of the run; None is not said, where epochs or time end it.
        val_size_is_given: the size of batches of validation does not follow that of training.
    """

    model: dict[str, Any] = field(hash=False)
    situation: Situation
    devices: int = 1
    num_nodes: int = 1
    devices_are_assumed: bool = False
    mean_pixels: float = 0.0
    sizes_are_assumed: bool = False
    tf32: str = "convolutions"
    max_steps: int | None = _PAPER_STEPS
    val_size_is_given: bool = False

    @property
    def images_per_step(self) -> int:
        """Images per optimiser step, over all devices."""
        return self.situation.batch_size * self.situation.micro_batches * self.devices

    @property
    def is_sharded(self) -> bool:
        """Whether what trains is sharded over the devices (FSDP)."""
        return self.situation.shards > 1

    def with_situation(self, **changes: Any) -> "Setting":  # noqa: ANN401
        """Return the setting with another situation."""
        return replace(self, situation=replace(self.situation, **changes))


def read_setting(configs: Sequence[str | Path], image_size: tuple[int, int] | None = None) -> Setting:
    """Return what configurations ask for, laid over one another.

    Args:
        configs: files, or names of shipped ones.
        image_size: (height, width) in pixels of all images; None is that of the prepared data sets, where they are on
            this machine, else their usual one.

    Raises:
        InputError: one cannot be read, or asks for what cannot be planned.
    """
    if not configs:
        raise InputError("give the configurations to plan: --config FILE.")
    config = read_config([Path(find_config(str(name))) for name in configs])
    trainer, data_section = section(config.get("trainer")), section(config.get("data"))
    sizes, is_assumed = ([(image_size, 1.0)], False) if image_size else _sizes(data_section)
    largest = max((size for size, _ in sizes), key=lambda size: size[0] * size[1])
    weight = sum(share for _, share in sizes)
    devices, devices_are_assumed = devices_of(trainer)
    shards, strategy_options = strategy_of(trainer)
    average = section(config.get("ema"))
    batch_size, val_batch_size = batch_sizes_of(data_section)
    situation = Situation(
        image_size=largest,
        batch_size=batch_size,
        micro_batches=count(trainer.get("accumulate_grad_batches", 1), "trainer.accumulate_grad_batches"),
        precision=precision_of(trainer),
        val_batch_size=val_batch_size or batch_size,
        average_on_device=average.get("decay") is not None and not average.get("on_cpu"),
        buckets=int(devices > 1 and not shards),
        gradients_are_buckets=devices > 1 and not shards and bool(strategy_options.get("gradient_as_bucket_view")),
        shards=devices if shards else 1,
    )
    return Setting(
        model=config["model"],
        situation=situation,
        devices=devices,
        num_nodes=int(trainer.get("num_nodes", 1)),
        devices_are_assumed=devices_are_assumed,
        mean_pixels=sum(height * width * share for (height, width), share in sizes) / weight,
        sizes_are_assumed=is_assumed,
        tf32=str(config.get("tf32", "convolutions")),
        max_steps=steps_of(trainer, _PAPER_STEPS),
        val_size_is_given=val_batch_size is not None,
    )


def _sizes(data_section: Mapping[str, Any]) -> tuple[list[tuple[tuple[int, int], float]], bool]:
    """Return sizes of images with their weights, and whether they are no more than usual."""
    options, kind = section(data_section.get("init_args")), data_class(data_section)
    if isinstance(kind, MakesItsData):
        return [*kind.sizes_with_weights(options)], False
    found, is_assumed = [], False
    datasets = options.get("datasets") if isinstance(options.get("datasets"), list) else []
    for dataset in datasets or [{}]:
        dataset = dataset if isinstance(dataset, dict) else {"path": str(dataset)}
        path = Path(str(dataset.get("path", "")))
        try:
            size = _size(read_json_file(path / "dataset.json", MAX_MANIFEST_BYTES)["image_size"])
        except (ValueError, KeyError, TypeError):
            size, is_assumed = _USUAL_SIZES.get(path.name, _USUAL_SIZES["hypersim"]), True
        found.append((size, float(dataset.get("weight", 1))))
    return found, is_assumed


def _size(value: Any) -> tuple[int, int]:  # noqa: ANN401 - whatever a file says
    """Return an image size, if it is one that a data set may have; raises ``ValueError`` otherwise."""
    height, width = value
    if type(height) is not int or type(width) is not int or not 0 < height * width <= MAX_SAMPLE_PIXELS or height < 1:
        raise ValueError
    return height, width
