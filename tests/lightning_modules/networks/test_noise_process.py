"""Both noise processes against diffusers' own schedulers, and against themselves."""

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from geometry.errors import InputError
from lightning_modules.networks.diffusion_process import PREDICTION_TYPES, DiffusionProcess
from lightning_modules.networks.flow_matching import FlowMatching

PROCESSES = {
    **{kind: DiffusionProcess(DDIMScheduler(prediction_type=kind, clip_sample=False)) for kind in PREDICTION_TYPES},
    "velocity": FlowMatching(FlowMatchEulerDiscreteScheduler()),
    "velocity, shifted": FlowMatching(FlowMatchEulerDiscreteScheduler(shift=3.0)),
}


@pytest.fixture(params=PROCESSES.values(), ids=PROCESSES)
def process(request):
    return request.param


def clean_and_noise(num_images=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, num_images, 4, 6, 8, generator=generator, dtype=dtype)


def test_the_training_target_is_the_output_that_stands_for_the_clean_latent(process):
    clean, noise = clean_and_noise()
    timesteps = process.draw_timesteps([1, 2, 3])
    noisy = process.add_noise(clean, noise, timesteps)
    target = process.training_target(clean, noise, timesteps)
    for number, timestep in enumerate(timesteps):
        found = process.predict_x0(target[number], noisy[number], timestep.item())
        assert torch.allclose(found, clean[number], atol=1e-4)  # alphas and sigmas are float32


@pytest.mark.parametrize("num_steps", [1, 2, 10])
def test_a_denoiser_that_is_always_right_is_sampled_to_the_clean_latent(process, num_steps):
    clean, noise = clean_and_noise(1)
    sampler = process.make_sampler(num_steps, "trailing")
    assert len(sampler) == num_steps
    latent = process.add_noise(clean, noise, next(iter(sampler))[None])
    for timestep in sampler:
        output = process.training_target(clean, noise, timestep[None])
        last = sampler.predict_x0(output, latent, timestep.item())
        latent = sampler.step(output, timestep, latent)
    assert torch.allclose(last, clean, atol=1e-3)
    assert torch.allclose(latent, clean, atol=1e-3)


def test_timesteps_depend_on_seeds_alone_and_reach_both_ends(process):
    drawn = process.draw_timesteps(range(4000))
    assert torch.equal(drawn[7:9], process.draw_timesteps([7, 8]))
    shares = drawn / process.num_timesteps
    assert shares.min() < 0.01 and shares.max() > 0.99 and drawn.max() <= process.last_timestep


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_diffusion_is_that_of_diffusers(kind):
    process, (clean, noise) = PROCESSES[kind], clean_and_noise(dtype=torch.float32)
    timesteps = process.draw_timesteps([1, 2, 3])
    assert torch.equal(process.add_noise(clean, noise, timesteps), process.scheduler.add_noise(clean, noise, timesteps))
    expected = {
        "epsilon": noise,
        "sample": clean,
        "v_prediction": process.scheduler.get_velocity(clean, noise, timesteps),
    }
    assert torch.equal(process.training_target(clean, noise, timesteps), expected[kind])


def test_flow_matching_is_that_of_diffusers():
    process, (clean, noise) = PROCESSES["velocity, shifted"], clean_and_noise(dtype=torch.float32)
    timesteps = process.draw_timesteps([1, 2, 3])
    expected = FlowMatchEulerDiscreteScheduler(shift=3.0).scale_noise(clean, timesteps, noise)
    assert torch.allclose(process.add_noise(clean, noise, timesteps), expected, atol=1e-6)


def test_a_shift_draws_more_of_the_noisy_timesteps():
    plain, shifted = (PROCESSES[name].draw_timesteps(range(1000)).mean() for name in ("velocity", "velocity, shifted"))
    assert 450 < plain < 550 and shifted > 650


@pytest.mark.parametrize("name", ["use_dynamic_shifting", "invert_sigmas", "stochastic_sampling"])
def test_schedulers_of_flow_matching_that_do_something_else_are_refused(name):
    with pytest.raises(InputError, match=f"says {name}: true"):
        FlowMatching(FlowMatchEulerDiscreteScheduler(**{name: True}))


def test_more_steps_than_there_are_timesteps_are_refused(process):
    with pytest.raises(InputError, match=r"num_steps 1001 is too large: the noise schedule has 1000 timesteps"):
        process.make_sampler(1001, "trailing")
