"""A plan as text and as values that JSON can hold."""

from typing import Any

from lightning_modules.planning.cards import CONTEXT_BYTES, IDLE_SHARE, Card
from lightning_modules.planning.plan import Plan
from lightning_modules.planning.setting import Setting
from lightning_modules.planning.ways_to_fit import FittingWay

_SHOWN = 8
_LITTLE = 2**28  # bytes
_NAMED = 1 / 256  # of the peak: kinds that are smaller are not named


def gib(size: float) -> str:
    """Return a number of bytes as text, in GiB, or in MiB where that would be little."""
    return f"{size / 2**30:.1f} GiB" if size >= _LITTLE or not size else f"{size / 2**20:.1f} MiB"


def describe(plan: Plan) -> list[str]:
    """Return what a plan says of any card, in lines.

    Args:
        plan: the plan.
    """
    setting, books = plan.setting, plan.books
    situation = setting.situation
    height, width = situation.image_size
    assumed = ", the usual size of such data; none are prepared here" if setting.sizes_are_assumed else ""
    parts = ", ".join(f"{phase} {gib(size)}" for phase, size in books.phase_bytes.items() if phase != "start")
    kinds = ", ".join(
        f"{kind} {gib(size)}" for kind, size in books.by_kind().items() if size > _NAMED * plan.peak_bytes
    )
    operations = ", ".join(f"{phase} {number / 1e12:.2f}" for phase, number in plan.flops_by_phase.items() if number)
    sharded = ", sharded" if setting.is_sharded else ""
    lines = [
        f"{plan.base}: {plan.num_weights / 1e9:.2f} billion weights in the denoiser, {plan.num_trained / 1e6:.1f} "
        "million train in all",
        f"step: {setting.images_per_step} images = {setting.devices} device(s){sharded} x {situation.micro_batches} x "
        f"{situation.batch_size}, {situation.precision}, largest images {height}x{width}{assumed}",
        *_assumed_devices(setting),
        f"peak of tensors: {gib(plan.peak_bytes)} on each device, in {_peak_phase(plan)}",
        f"by phase: {parts}",
        f"at the peak: {kinds}",
        "largest tensors there:",
    ]
    for entry in books.at_peak[:_SHOWN]:
        size = "x".join(map(str, entry.shape))
        lines.append(f"  {gib(entry.num_bytes)}  {size} {str(entry.dtype).removeprefix('torch.')}  {entry.maker}")
    lines.append(f"TFLOP per image: {plan.flops_per_image / 1e12:.2f} ({operations})")
    return lines


def _assumed_devices(setting: Setting) -> list[str]:
    if not setting.devices_are_assumed:
        return []
    return [
        "  the machine decides how many devices (trainer.devices: auto): planned is one on each node; fit takes all"
    ]


def describe_on(plan: Plan, card: Card, most: int, way: FittingWay | None, utilisation: float) -> list[str]:
    """Return what a plan says of a card, in lines.

    Args:
        plan: the plan.
        card: the GPU.
        most: the largest micro-batch there.
        way: options with which it fits, where it does not without.
        utilisation: share of what its maker states that is reached.
    """
    fits = "fits" if plan.fits(card) else "does not fit"
    lines = [
        f"{card.name}: {fits}: {gib(plan.peak_bytes)} of the {gib(card.room_bytes)} that are left of "
        f"{gib(card.memory_bytes)} after {gib(CONTEXT_BYTES)} for CUDA and {IDLE_SHARE:.0%} of idle memory (both "
        f"assumed); largest micro-batch {most}"
    ]
    lines += [f"  {each}" for each in _speed(plan, card, utilisation)]
    if plan.fits(card):
        return lines
    if way is None:
        return [*lines, "  no options were found that make it fit: take a larger card"]
    lines.append(f"  cheapest way to fit, {gib(way.peak_bytes)}, add to fit: {' '.join(way.options)}")
    return lines + [f"    then {each}" for each in _speed(way.plan, card, utilisation)]


def _speed(plan: Plan, card: Card, utilisation: float) -> list[str]:
    seconds = plan.seconds_per_step(card, utilisation)
    if seconds is None:
        return []
    steps = plan.setting.max_steps
    whole = "" if steps is None else f"{steps:,} steps in {steps * seconds / 3600:.1f} h, "
    return [f"{3600 / seconds:,.0f} steps per hour, {whole}at {utilisation:.0%} of what its maker states"]


def _peak_phase(plan: Plan) -> str:
    sizes = plan.books.phase_bytes
    return max(sizes, key=lambda phase: sizes[phase])


def as_record(plan: Plan) -> dict[str, Any]:
    """Return a plan as values that JSON can hold.

    Args:
        plan: the plan.
    """
    situation = plan.setting.situation
    return {
        "base": plan.base,
        "image_size": list(situation.image_size),
        "batch_size": situation.batch_size,
        "images_per_step": plan.setting.images_per_step,
        "devices": plan.setting.devices,
        "precision": situation.precision,
        "weights": plan.num_weights,
        "weights_that_train": plan.num_trained,
        "peak_bytes": plan.peak_bytes,
        "bytes_by_phase": plan.books.phase_bytes,
        "bytes_at_peak_by_kind": plan.books.by_kind(),
        "flops_per_image": plan.flops_per_image,
        "flops_per_image_by_phase": plan.flops_by_phase,
    }
