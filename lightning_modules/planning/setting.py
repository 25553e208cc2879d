"""What a plan needs of a run's configuration, beside its model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geometry.errors import InputError
from geometry.files.json_text import read_json_file
from geometry.files.limits import MAX_MANIFEST_BYTES, MAX_SAMPLE_PIXELS
from lightning_modules.inference.run_config import read_config
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
        mean_pixels: pixels of an image in the mean over the data sets.
        sizes_are_assumed: no prepared data set said how large its images are.
        tf32: the option of this name.
        max_steps: optimiser steps of the run.
    """

    model: dict[str, Any] = field(hash=False)
    situation: Situation
    devices: int = 1
    mean_pixels: float = 0.0
    sizes_are_assumed: bool = False
    tf32: str = "convolutions"
    max_steps: int = _PAPER_STEPS

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
    trainer, data = _plain(config.get("trainer")), _plain(config.get("data"))
    options = _plain(data.get("init_args"))
    sizes, is_assumed = ([(image_size, 1.0)], False) if image_size else _sizes(options)
    largest = max((size for size, _ in sizes), key=lambda size: size[0] * size[1])
    weight = sum(share for _, share in sizes)
    devices = _count(trainer.get("devices", 1), "trainer.devices") * _count(trainer.get("num_nodes", 1), "num_nodes")
    strategy, strategy_options = _strategy(trainer.get("strategy", "auto"))
    is_sharded = strategy == "FullySharded"
    average = _plain(config.get("ema"))
    situation = Situation(
        image_size=largest,
        batch_size=_count(options.get("batch_size", 2), "data.batch_size"),
        micro_batches=_count(trainer.get("accumulate_grad_batches", 1), "trainer.accumulate_grad_batches"),
        precision=str(trainer.get("precision") or "32-true"),
        val_batch_size=_count(options.get("val_batch_size", options.get("batch_size", 2)), "data.val_batch_size"),
        average_on_device=average.get("decay") is not None and not average.get("on_cpu"),
        buckets=int(devices > 1 and not is_sharded),
        gradients_are_buckets=devices > 1 and not is_sharded and bool(strategy_options.get("gradient_as_bucket_view")),
        shards=devices if is_sharded else 1,
    )
    return Setting(
        model=config["model"],
        situation=situation,
        devices=devices,
        mean_pixels=sum(height * width * share for (height, width), share in sizes) / weight,
        sizes_are_assumed=is_assumed,
        tf32=str(config.get("tf32", "convolutions")),
        max_steps=_steps(trainer.get("max_steps")),
    )


def _sizes(options: Mapping[str, Any]) -> tuple[list[tuple[tuple[int, int], float]], bool]:
    """Return sizes of images with their weights, and whether they are no more than usual."""
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


def _strategy(strategy: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401 - whatever a configuration says
    if isinstance(strategy, dict):
        return str(strategy.get("class_path", "")).rpartition(".")[2], _plain(strategy.get("init_args"))
    return str(strategy), {}


def _plain(section: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever a configuration says
    """Return a section with its interpolations resolved; one that is missing, or refers to what is not, is empty."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(section, dict):
        return {}
    try:
        found: Any = OmegaConf.to_container(OmegaConf.create(section), resolve=True)
    except OmegaConfBaseException:
        return section
    return found


def _count(value: Any, name: str) -> int:  # noqa: ANN401 - whatever a configuration says
    if isinstance(value, list):
        return len(value)
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise InputError(f"{name}: {value} cannot be planned; give a number of at least 1.")
    return number


def _steps(value: Any) -> int:  # noqa: ANN401 - whatever a configuration says
    return value if isinstance(value, int) and value > 0 else _PAPER_STEPS
