"""The noise schedule of a Stable Diffusion base."""

from typing import Any

from geometry.errors import InputError
from lightning_modules.networks.base_files import Base
from lightning_modules.networks.ddim import make_ddim
from lightning_modules.networks.diffusion_process import PREDICTION_TYPES, DiffusionProcess, PredictionType
from lightning_modules.networks.pretrained import load_part


def load_noise_process(
    base: Base, zero_terminal_snr: bool, prediction_type: PredictionType | None = None
) -> DiffusionProcess:
    """Return the noise process of a base.

    Args:
        base: the base, checked.
        zero_terminal_snr: rescale the schedule so that the last timestep holds noise alone.
        prediction_type: what the UNet's output is taken for; None is what the base says.

    Raises:
        InputError: the scheduler is none of diffusion, or a single step from its last timestep cannot be taken.
    """
    return DiffusionProcess(_load_scheduler(base, zero_terminal_snr, prediction_type))


# diffusers' schedulers share no type with a noise schedule.
def _load_scheduler(base: Base, zero_terminal_snr: bool, wanted: PredictionType | None) -> Any:  # noqa: ANN401
    """Return the scheduler of a base, as the class that its config names, so that its own defaults hold."""
    import diffusers

    file = "scheduler/scheduler_config.json"
    config = load_part(diffusers.DDIMScheduler.load_config, base, "scheduler")
    name = config.get("_class_name")
    is_scheduler = isinstance(name, str) and name.endswith("Scheduler")
    kind: Any = getattr(diffusers, name, None) if is_scheduler else None
    scheduler: Any = load_part(lambda *_, **__: kind.from_config(config), base, "scheduler") if kind else None
    prediction_type = scheduler.config.get("prediction_type") if scheduler else None
    if not hasattr(scheduler, "alphas_cumprod") or prediction_type not in PREDICTION_TYPES:
        raise base.refusal(
            file,
            f"({name or 'no class named'}, prediction_type {prediction_type}) is no diffusion schedule with "
            f"prediction_type {', '.join(PREDICTION_TYPES[:-1])} or {PREDICTION_TYPES[-1]}.",
        )
    if wanted is not None:
        prediction_type = wanted
        scheduler.register_to_config(prediction_type=wanted)
    if zero_terminal_snr:
        scheduler = make_ddim(scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    betas = scheduler.betas
    if not bool(((betas >= 0) & (betas <= 1)).all()):
        raise base.refusal(file, "gives betas that are not between 0 and 1. Needed: a noise schedule.")
    if prediction_type == "epsilon" and scheduler.alphas_cumprod[-1] < 1e-8:
        raise InputError(
            f"the UNet of {base} predicts the noise, but its last timestep holds no signal to subtract from."
        )
    return scheduler
