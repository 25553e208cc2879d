"""The cheapest options that make a configuration fit a card."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from geometry.jsonargparse_internals import parameters_of
from lightning_modules.planning.cards import Card
from lightning_modules.planning.plan import Plan, make_plan
from lightning_modules.planning.run_options import class_named
from lightning_modules.planning.setting import Setting
from lightning_modules.planning.simulated_step import STATES

_BITS_OF_STATES = 8
# The optimiser that computes the same with states of 8 bits.
_SMALL_STATES = {torch.optim.AdamW: "bitsandbytes.optim.AdamW8bit", torch.optim.Adam: "bitsandbytes.optim.Adam8bit"}
_ADAPTERS = {"rank": 16}
_QUANTIZATION = "nf4"
_MOST_DEVICES = 8


@dataclass(frozen=True)
class Way:
    """Options on top of a configuration.

    Attributes:
        options: what to set, as words of the command line of ``fit``, quoted for a shell.
        setting: the configuration with them.
        saved_bytes: what states of 8 bits save; no plan shows it.
    """

    options: tuple[str, ...]
    setting: Setting
    has_small_states: bool = False


@dataclass(frozen=True)
class FittingWay:
    """Options that make a configuration fit.

    Attributes:
        options: what to set, as words of the command line of ``fit``, quoted for a shell.
        plan: the plan with them.
        peak_bytes: the most memory that tensors take at once.
    """

    options: tuple[str, ...]
    plan: Plan
    peak_bytes: int


def cheapest_way(plan: Plan, card: Card) -> FittingWay | None:
    """Return the cheapest options with which a configuration fits a card, or None if none was found.

    Tried in this order, each on top of those before: bf16-mixed with a frozen VAE in bfloat16, micro-batches of one
    image, the decoder recomputed, the denoiser recomputed, states of 8 bits; then adapters in place of all weights,
    then a base of 4 bits under them; then sharding over 2, 4 and 8 such cards. Images per step stay what they are.

    Args:
        plan: the plan of the configuration.
        card: the GPU.
    """
    for way in _ways(plan.setting):
        found = make_plan(way.setting)
        peak = found.peak_bytes - (_saved_by_small_states(found) if way.has_small_states else 0)
        if peak <= card.room_bytes:
            return FittingWay(way.options, found, peak)
    return None


def _saved_by_small_states(plan: Plan) -> int:
    return round(plan.books.by_kind().get(STATES, 0) * (1 - _BITS_OF_STATES / 32 - 1 / 256))


def _ways(setting: Setting) -> Iterator[Way]:
    options: list[str] = []
    network = _network(setting)
    known = _parameters(network["class_path"])
    given = network["init_args"]

    def with_option(current: Setting, name: str, value: Any, shown: str) -> Setting:  # noqa: ANN401
        options.append(f"--model.network.{name}={shown}")
        return _with_network(current, name, value)

    if setting.situation.precision == "32-true":
        setting = setting.with_situation(precision="bf16-mixed")
        options.append("--trainer.precision=bf16-mixed")
        if "vae_precision" in known:
            setting = with_option(setting, "vae_precision", "bfloat16", "bfloat16")
        yield Way(tuple(options), setting)
    if (images := setting.situation.batch_size) > 1:
        micro_batches = setting.situation.micro_batches * images
        setting = setting.with_situation(batch_size=1, micro_batches=micro_batches)
        options += ["--data.batch_size=1", f"--trainer.accumulate_grad_batches={micro_batches}"]
    if images > 1 or setting.situation.val_batch_size > 1:
        setting = setting.with_situation(val_batch_size=1)
        options += ["--data.val_batch_size=1"] * setting.val_size_is_given
        yield Way(tuple(options), setting)
    names = sorted((name for name in known if name.endswith("checkpointing")), key=lambda name: "decoder" not in name)
    for name in names:
        if not given.get(name):
            setting = with_option(setting, name, True, "true")
            yield Way(tuple(options), setting)
    small = _SMALL_STATES.get(_optimizer(setting))
    if small and not given.get("lora"):
        yield Way((*options, f"--model.optimizer={small}"), setting, has_small_states=True)
    yield from _ways_that_learn_less(setting, options, known)


def _ways_that_learn_less(setting: Setting, options: list[str], known: set[str]) -> Iterator[Way]:
    """Yield adapters, 4 bits and several cards, for what all weights on one card have no room for."""
    given = _network(setting)["init_args"]
    whole = setting
    adapted, shown = setting, list(options)
    if "lora" in known and not given.get("lora"):
        adapted = _with_network(setting, "lora", _ADAPTERS)
        shown.append(f"--model.network.lora='{{rank: {_ADAPTERS['rank']}}}'")
        yield Way(tuple(shown), adapted)
    if "quantization" in known and not given.get("quantization"):
        packed = _with_network(adapted, "quantization", _QUANTIZATION)
        if given.get("compile"):
            packed = _with_network(packed, "compile", None)
            shown.append("--model.network.compile=null")
        yield Way((*shown, f"--model.network.quantization={_QUANTIZATION}"), packed)
    if given.get("lora") or setting.is_sharded:
        return  # what is frozen is whole on every device
    for name, value, shown_value in (("compile", None, "null"), ("channels_last", False, "false")):
        if given.get(name):  # FSDP2 shards contiguous weights alone
            whole = _with_network(whole, name, value)
            options = [*options, f"--model.network.{name}={shown_value}"]
    for devices in (2, 4, _MOST_DEVICES):
        micro_batches, rest = divmod(whole.images_per_step, devices * whole.situation.batch_size)
        if devices < whole.devices or rest or devices % whole.num_nodes:
            continue
        sharded = replace(whole, devices=devices).with_situation(
            micro_batches=micro_batches, shards=devices, buckets=0, gradients_are_buckets=False
        )
        words = (
            "--trainer.strategy='{class_path: lightning_modules.FullySharded}'",
            f"--trainer.devices={devices // whole.num_nodes}",
            f"--trainer.accumulate_grad_batches={micro_batches}",
        )
        yield Way((*options, *words), sharded)


def _network(setting: Setting) -> dict[str, Any]:
    network = setting.model["init_args"]["network"]
    return {"class_path": network["class_path"], "init_args": network.get("init_args") or {}}


def _optimizer(setting: Setting) -> type:
    """Return the class of the optimiser; where a configuration names none, that of estimators."""
    optimizer = setting.model["init_args"].get("optimizer") or {}
    path = optimizer.get("class_path") if isinstance(optimizer, dict) else optimizer
    return class_named(str(path), "model.optimizer") if path else torch.optim.AdamW


def _with_network(setting: Setting, name: str, value: Any) -> Setting:  # noqa: ANN401
    network = _network(setting)
    changed = {**network, "init_args": {**network["init_args"], name: value}}
    return replace(setting, model={**setting.model, "init_args": {**setting.model["init_args"], "network": changed}})


def _parameters(class_path: str) -> set[str]:
    """Return the names of the options of a network."""
    return {name for name, _, _ in parameters_of(class_named(class_path, "model.network"))}
