import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler, PNDMScheduler

from lightning_modules.networks.ddim import make_ddim

SCHEDULE = {"beta_start": 0.001, "beta_end": 0.02, "beta_schedule": "scaled_linear", "num_train_timesteps": 500}


@pytest.mark.parametrize("kind", [PNDMScheduler, DDPMScheduler, EulerDiscreteScheduler])
def test_any_base_can_be_sampled_with_its_own_noise_schedule(kind):
    base = kind(**SCHEDULE, prediction_type="v_prediction")
    scheduler = make_ddim(base.config, timestep_spacing="trailing")
    assert torch.allclose(scheduler.alphas_cumprod, base.alphas_cumprod)
    assert scheduler.config["prediction_type"] == "v_prediction"
    assert scheduler.config["timestep_spacing"] == "trailing"


@pytest.mark.parametrize(("kind", "clips"), [(PNDMScheduler, False), (DDPMScheduler, True)])
def test_latents_are_clipped_only_if_the_base_clips_them(kind, clips):
    assert make_ddim(kind(**SCHEDULE).config).config["clip_sample"] == clips
    assert make_ddim(kind(**SCHEDULE).config, clip_sample=not clips).config["clip_sample"] != clips
