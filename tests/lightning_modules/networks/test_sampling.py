"""Sampling against hand-computed timesteps, the single-step formula and diffusers' own pipelines."""

import pytest
import torch
from diffusers import DDIMScheduler, MarigoldDepthPipeline, MarigoldNormalsPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from geometry.errors import InputError
from lightning_modules import Depth, DiffusionEstimator, Normals, Sampling, SingleStepEstimator, StableDiffusion
from lightning_modules.networks.noise import draw_noise, seed_from
from lightning_modules.networks.sampling import sample_latent
from tests.helpers.tiny import build_base, make_batch

PREDICTION_TYPES = ("v_prediction", "epsilon", "sample")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Marigold in miniature, whose scheduler keeps the noise of timestep 0 at the end, as Stable Diffusion 2's does."""
    return {kind: build_base(tmp_path_factory.mktemp(kind), kind, in_channels=8) for kind in PREDICTION_TYPES}


@pytest.fixture(scope="module")
def network(bases):
    return StableDiffusion(str(bases["v_prediction"]))


# A single leading step of Stable Diffusion 2's schedule (1000 timesteps, offset 1) is timestep 1: the paper's flaw.
TIMESTEPS = {
    ("leading", 1): [1],
    ("leading", 2): [501, 1],
    ("leading", 4): [751, 501, 251, 1],
    ("leading", 10): [901, 801, 701, 601, 501, 401, 301, 201, 101, 1],
    ("leading", 50): list(range(981, 0, -20)),
    ("trailing", 1): [999],
    ("trailing", 2): [999, 499],
    ("trailing", 4): [999, 749, 499, 249],
    ("trailing", 10): [999, 899, 799, 699, 599, 499, 399, 299, 199, 99],
    ("trailing", 50): list(range(999, 18, -20)),
}


@pytest.mark.parametrize(("spacing", "num_steps"), TIMESTEPS)
def test_leading_and_trailing_steps_are_taken_where_the_paper_says(network, spacing, num_steps):
    sampler = network.noise_process.make_sampler(num_steps, spacing)
    assert [timestep.item() for timestep in sampler] == TIMESTEPS[spacing, num_steps]
    assert len(sampler) == num_steps


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_any_number_of_steps_is_taken_in_full_and_stays_in_the_schedule(network, spacing):
    for num_steps in [61, 103, 121, 333, 995, 999]:  # numbers at which diffusers rounds one trailing step too many
        timesteps = torch.stack(list(network.noise_process.make_sampler(num_steps, spacing)))
        assert len(timesteps) == num_steps
        assert 0 <= timesteps.min() and timesteps.max() <= 999
        assert (timesteps.diff() < 0).all()


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_one_trailing_step_is_exactly_the_single_step_formula(bases, kind):
    single = SingleStepEstimator(StableDiffusion(str(bases[kind]), noise="gaussian"), Depth())
    diffusion = DiffusionEstimator(single.network, Depth(), Sampling(1, "trailing"))
    image = make_batch().image
    with torch.no_grad():
        expected = single(image, [1, 2])
    assert torch.equal(diffusion(image, [1, 2]), expected)
    leading = DiffusionEstimator(single.network, Depth(), Sampling(1, "leading"))(image, [1, 2])
    assert not torch.allclose(leading, expected, atol=1e-3)


def test_a_step_from_zeros_is_what_the_single_step_estimator_does_by_default(bases):
    single = SingleStepEstimator(StableDiffusion(str(bases["v_prediction"])), Normals())
    image = make_batch().image
    with torch.no_grad():
        expected = single(image)
    sampled = DiffusionEstimator(single.network, Normals(), Sampling(1, noise="zeros"))(image, [1, 2])
    assert torch.equal(sampled, expected)


def stock_pipeline(pipeline_class, base, network, spacing, **scheduler_options):
    """The pipeline that a user of diffusers gets from a folder with this scheduler."""
    scheduler = DDIMScheduler.from_pretrained(
        base, subfolder="scheduler", timestep_spacing=spacing, **scheduler_options
    )
    pipeline = pipeline_class(
        network.unet,
        network.vae,
        scheduler,
        CLIPTextModel.from_pretrained(base, subfolder="text_encoder"),
        CLIPTokenizer.from_pretrained(base, subfolder="tokenizer"),
        default_processing_resolution=0,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run_stock(pipeline, image, latents, **options):
    options = {"processing_resolution": 0, "output_type": "pt", "batch_size": 2} | options
    return pipeline(image / 2 + 0.5, latents=latents, **options).prediction


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("num_steps", [1, 2, 4, 10])
def test_depth_is_that_of_diffusers_marigold_pipeline(bases, network, spacing, num_steps):
    image, base = make_batch().image, bases["v_prediction"]
    latents = draw_noise("gaussian", torch.zeros(2, 4, 8, 8), [1, 2])
    for end, options in (("scheduler", {}), ("clean", {"set_alpha_to_one": True})):
        stock = run_stock(
            stock_pipeline(MarigoldDepthPipeline, base, network, spacing, **options),
            image,
            latents,
            num_inference_steps=num_steps,
        )
        own = DiffusionEstimator(network, Depth(), Sampling(num_steps, spacing, end=end))(image, [1, 2])
        assert torch.allclose(own / 2 + 0.5, stock, atol=1e-6)  # measured: 0 with end: scheduler
    assert stock.std() > 0.01


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_the_end_follows_the_scheduler_on_request_and_is_clean_by_default(bases, kind):
    network = StableDiffusion(str(bases[kind])).double()
    image_latent, noise = torch.randn(2, 2, 4, 8, 8, dtype=torch.float64)
    clean, followed = (
        sample_latent(network, image_latent, noise, Sampling(2, end=end)) for end in ("clean", "scheduler")
    )
    model_output = network.model_output(torch.cat([image_latent, noise], dim=1), torch.tensor(999))
    a, b = network.noise_process.scheduler.alphas_cumprod[[999, 499]].double()
    for _ in range(2):
        start = {
            "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * model_output,
            "epsilon": (noise - (1 - a).sqrt() * model_output) / a.sqrt(),
            "sample": model_output,
        }[kind]
        rest = (noise - a.sqrt() * start) / (1 - a).sqrt()
        noise = b.sqrt() * start + (1 - b).sqrt() * rest
        model_output = network.model_output(torch.cat([image_latent, noise], dim=1), torch.tensor(499))
        a, b = b, network.noise_process.scheduler.alphas_cumprod[0].double()
    assert (clean - start).norm() / start.norm() < 1e-6
    assert (followed - noise).norm() / noise.norm() < 1e-6


def test_clipping_is_that_of_the_scheduler_at_every_step(tmp_path):
    clipping = build_base(tmp_path, in_channels=8, clip_sample=True, clip_sample_range=0.05)
    network = StableDiffusion(str(clipping))
    latent = torch.randn(1, 4, 8, 8)
    assert sample_latent(network, latent, torch.randn_like(latent), Sampling(3)).abs().max() == 0.05


def test_a_prediction_depends_on_its_own_seed_alone(network):
    estimator, image = DiffusionEstimator(network, Depth(), Sampling(2)), make_batch().image
    together = estimator(image, [1, 2])
    assert torch.allclose(estimator(image[1:], [2]), together[1:], atol=1e-5)
    assert not torch.allclose(estimator(image[1:], [3]), together[1:], atol=1e-3)


@pytest.mark.parametrize(("task", "pipeline"), [(Depth, MarigoldDepthPipeline), (Normals, MarigoldNormalsPipeline)])
def test_an_ensemble_is_what_diffusers_makes_of_independent_predictions(network, task, pipeline):
    class Recording(task):
        def ensemble(self, members):
            self.seen = members
            return super().ensemble(members)

    image = make_batch().image
    estimator = DiffusionEstimator(network, Recording(), Sampling(2, ensemble_size=3))
    combined = estimator(image, [1, 2])
    members = estimator.task.seen
    for number, member in enumerate(members):
        seeds = [1, 2] if number == 0 else [seed_from(1, "member", number), seed_from(2, "member", number)]
        assert torch.equal(member, DiffusionEstimator(network, task(), Sampling(2))(image, seeds))
    if task is Depth:
        expected = [2 * pipeline.ensemble_depth(members[:, i] / 2 + 0.5)[0] - 1 for i in range(2)]
    else:
        expected = [pipeline.ensemble_normals(members[:, i], False)[0] for i in range(2)]
    assert torch.equal(combined, torch.cat(expected))
    assert not torch.allclose(combined, members[0], atol=1e-3)


def test_an_ensemble_of_one_is_the_prediction_itself(network):
    image, sampling = make_batch().image, Sampling(2, ensemble_size=1)
    image_latent = network.encode(image)
    latent = sample_latent(network, image_latent, draw_noise("gaussian", image_latent, [1, 2]), sampling)
    expected = Depth().predict(network.decode(latent))
    assert torch.equal(DiffusionEstimator(network, Depth(), sampling)(image, [1, 2]), expected)


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_steps": 0}, r"sampling.num_steps must be at least 1 and at most 10000, got 0"),
            ({"ensemble_size": 0}, r"sampling.ensemble_size must be at least 1 and at most 10000, got 0"),
            ({"spacing": "tailing"}, r"no sampling.spacing 'tailing'; choose one of leading, trailing"),
            ({"noise": "loud"}, r"no sampling.noise 'loud'; choose one of gaussian, pyramid, zeros"),
            ({"end": "never"}, r"no sampling.end 'never'; choose one of clean, scheduler"),
        ],
    )
    def test_settings_out_of_range_are_named(self, options, message):
        with pytest.raises(InputError, match=message):
            Sampling(**options)

    @pytest.mark.parametrize("sampling", [Sampling(1001), Sampling(1000, "leading")])
    def test_more_steps_than_the_schedule_has_are_refused_before_training(self, network, sampling):
        with pytest.raises(InputError, match=r"num_steps 100\d is too large: the noise schedule has 1000 timesteps"):
            DiffusionEstimator(network, Depth(), sampling)
