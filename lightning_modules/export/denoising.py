"""A diffusion estimator as parts of a stock Marigold pipeline: the same noise and steps, the weights as trained."""

import copy
from dataclasses import replace
from typing import Any

from geometry.errors import InputError
from lightning_modules.diffusion import DiffusionEstimator
from lightning_modules.export.parts import PipelineParts, copies_of_models, network_of
from lightning_modules.inference.loading import LoadedModel
from lightning_modules.networks.ddim import make_ddim


def denoising_parts(estimator: DiffusionEstimator) -> PipelineParts:
    """Return the parts of a diffusion estimator for a stock Marigold pipeline that takes its steps.

    Args:
        estimator: a trained estimator.

    Raises:
        InputError: stock diffusers cannot take these steps.
    """
    sampling, config = estimator.sampling, network_of(estimator).noise_process.scheduler.config
    if sampling.noise != "gaussian":
        raise InputError(
            f"a sampling from noise: {sampling.noise} cannot be exported: diffusers' pipelines draw gaussian noise. "
            "Give a configuration with sampling.noise: gaussian, or fine-tune the model to a single step."
        )
    options: dict[str, Any] = {"timestep_spacing": sampling.spacing}
    if sampling.end == "clean":
        options["set_alpha_to_one"] = True
    _check_steps(estimator, options)
    unet, vae = copies_of_models(estimator)
    known = {name: config.get(name, False) for name in ("clip_sample", "thresholding")}
    return PipelineParts(unet, vae, options | known, needs_noise=True, num_steps=sampling.num_steps)


def without_ensemble(model: LoadedModel) -> LoadedModel:
    """Return a model that predicts from one noise: a pipeline's ensemble is an argument of its call, with other noise.

    Args:
        model: any model.
    """
    if not isinstance(model.estimator, DiffusionEstimator):
        return model
    estimator = copy.copy(model.estimator)
    estimator.sampling = replace(estimator.sampling, ensemble_size=1)
    return replace(model, estimator=estimator)


def _check_steps(estimator: DiffusionEstimator, options: dict[str, Any]) -> None:
    """Check that stock diffusers takes as many steps, and ends where ours end."""
    sampling = estimator.sampling
    scheduler = make_ddim(network_of(estimator).noise_process.scheduler.config, **options)
    scheduler.set_timesteps(sampling.num_steps)
    stride = scheduler.config["num_train_timesteps"] // sampling.num_steps
    ends_before_first = int(scheduler.timesteps[-1]) - stride < 0
    if len(scheduler.timesteps) != sampling.num_steps or (sampling.end == "clean" and not ends_before_first):
        raise InputError(
            f"diffusers does not take {sampling.num_steps} {sampling.spacing} steps as the model does; export it with "
            "a number that divides the noise schedule, for instance sampling.num_steps: 4."
        )
