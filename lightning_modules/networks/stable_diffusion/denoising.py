"""A network that denoises as parts of a stock Marigold pipeline: the same noise and steps, the weights as trained."""

from typing import Any

from geometry.errors import InputError
from lightning_modules.networks.ddim import make_ddim
from lightning_modules.networks.pipeline_folder import PipelineModel
from lightning_modules.networks.sampling import Sampling
from lightning_modules.networks.stable_diffusion.pipeline_parts import PipelineParts, copies_of_models


def denoising_parts(model: PipelineModel, sampling: Sampling) -> PipelineParts:
    """Return the parts of a network that denoises for a stock Marigold pipeline that takes its steps.

    Args:
        model: a trained Stable Diffusion.
        sampling: its steps.

    Raises:
        InputError: stock diffusers cannot take these steps.
    """
    config = model.network.noise_process.scheduler.config
    if sampling.noise != "gaussian":
        raise InputError(
            f"a sampling from noise: {sampling.noise} cannot be exported: diffusers' pipelines draw gaussian noise. "
            "Give a configuration with sampling.noise: gaussian, or fine-tune the model to a single step."
        )
    options: dict[str, Any] = {"timestep_spacing": sampling.spacing}
    if sampling.end == "clean":
        options["set_alpha_to_one"] = True
    _check_steps(config, sampling, options)
    unet, vae = copies_of_models(model)
    known = {name: config.get(name, False) for name in ("clip_sample", "thresholding")}
    return PipelineParts(unet, vae, options | known, num_steps=sampling.num_steps)


def _check_steps(config: dict[str, Any], sampling: Sampling, options: dict[str, Any]) -> None:
    """Check that stock diffusers takes as many steps, and ends where ours end."""
    scheduler = make_ddim(config, **options)
    scheduler.set_timesteps(sampling.num_steps)
    stride = scheduler.config["num_train_timesteps"] // sampling.num_steps
    ends_before_first = int(scheduler.timesteps[-1]) - stride < 0
    if len(scheduler.timesteps) != sampling.num_steps or (sampling.end == "clean" and not ends_before_first):
        raise InputError(
            f"diffusers does not take {sampling.num_steps} {sampling.spacing} steps as the model does; export it with "
            "a number that divides the noise schedule, for instance sampling.num_steps: 4."
        )
