"""Marigold's training against a plain transcription of its formulas, written without the project's code."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from lightning.pytorch import seed_everything
from transformers import CLIPTextModel

from geometry.batch import DatasetInfo, Target
from geometry.errors import InputError
from lightning_modules import Depth, DiffusionEstimator, Normals, Sampling, StableDiffusion
from lightning_modules.networks.noise import seed_from
from tests.helpers.tiny import TinyData, build_base, make_batch
from tests.lightning_modules.test_estimator import make_trainer, trained_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]
PREDICTION_TYPES = ("v_prediction", "epsilon", "sample")
SEEDS = [11, 12]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {kind: build_base(tmp_path_factory.mktemp(kind), kind, in_channels=8) for kind in PREDICTION_TYPES}


def make_estimator(base, task=None, **options):
    return DiffusionEstimator(StableDiffusion(str(base)), task or Depth(), **options)


def small_batch(**options):
    batch = make_batch(height=24, width=32, **options)
    batch.targets["depth"].mask[:, :, 4:, 4:] = True  # random holes alone would leave no latent pixel without one
    batch.targets["normals"].mask.copy_(batch.targets["depth"].mask)
    batch.targets["normals"].mask[1, :, 8:16] = False
    return batch


@pytest.mark.parametrize("task", [Depth, Normals])
@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_loss_and_gradients_are_those_of_marigold(bases, kind, task):
    batch = small_batch()
    expected_loss, expected_gradients = transcription(bases[kind], kind, batch, task is Depth)

    # Worst cases measured, loss and gradients: 1.5e-8 and 1.5e-7 with the network in float64, 1.6e-7 and 1.5e-6 in
    # float32. Noise and prompt are float32 in both.
    for dtype, loss_tolerance, tolerance in ((torch.float64, 1e-7, 1e-6), (torch.float32, 2e-6, 2e-5)):
        estimator = make_estimator(bases[kind], task()).to(dtype)
        batch.image = batch.image.to(dtype)
        loss, extras = estimator.training_loss(batch, SEEDS)
        loss.backward()
        gradients = torch.cat([p.grad.flatten().double() for p in estimator.network.unet.parameters()])
        assert abs(loss.item() / expected_loss - 1) < loss_tolerance
        assert (gradients - expected_gradients).norm() / expected_gradients.norm() < tolerance
        assert 0.5 < extras["known_latent_share"] < 1


def transcription(base, kind, batch, is_depth):
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae").double()
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet").double()
    text_encoder = CLIPTextModel.from_pretrained(base, subfolder="text_encoder").double()
    prompt = text_encoder(torch.tensor([[0, 1]])).last_hidden_state.detach()
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, dim=0).double()

    def latent_of(image):
        return 0.18215 * vae.quant_conv(vae.encoder(image[None])).chunk(2, dim=1)[0].detach()

    errors = []
    for index, seed in enumerate(SEEDS):
        image, known = transcribed_truth(batch, index, is_depth)
        clean = latent_of(image)
        timestep = seed_from(seed, "timestep") % 1000
        noise = transcribed_noise(clean.shape, seed, strength=0.9 * timestep / 1000).double()
        signal, rest = alphas[timestep].sqrt(), (1 - alphas[timestep]).sqrt()
        noisy = signal * clean + rest * noise
        model_output = unet(
            torch.cat([latent_of(batch.image[index].double()), noisy], dim=1), timestep, encoder_hidden_states=prompt
        ).sample
        target = {"v_prediction": signal * noise - rest * clean, "epsilon": noise, "sample": clean}[kind]
        counts = known.reshape(6, 4, 8, 4).all(dim=3).all(dim=1)
        errors.append((model_output - target).pow(2)[0, :, counts].flatten())
    loss = torch.cat(errors).mean()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in unet.parameters()])


def transcribed_truth(batch, index, is_depth):
    if not is_depth:
        known = batch.targets["normals"].mask[index, 0]
        return (batch.targets["normals"].values[index] * known).double(), known
    depth, known = batch.targets["depth"].values[index, 0].double(), batch.targets["depth"].mask[index, 0]
    low, high = torch.quantile(depth[known], 0.02), torch.quantile(depth[known], 0.98)
    relative = ((depth - low) / (high - low) * 2 - 1).clip(-1, 1)
    return torch.where(known, relative, 1.0).repeat(3, 1, 1), known


def transcribed_noise(shape, seed, strength):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shape[1:], generator=generator)[None]
    height, width = shape[2:]
    for level in range(10):
        ratio = torch.rand((), generator=generator).item() * 2 + 2
        height, width = max(1, int(height / ratio**level)), max(1, int(width / ratio**level))
        coarse = torch.randn(1, shape[1], height, width, generator=generator)
        noise = noise + F.interpolate(coarse, size=tuple(shape[2:]), mode="bilinear") * strength**level
        if height == 1 or width == 1:
            break
    return noise / noise.std()


def test_timesteps_reach_from_the_first_to_the_last_and_follow_the_seeds(bases):
    asked = []
    estimator = make_estimator(bases["v_prediction"])
    estimator.network.model_output = lambda latent, timesteps: (asked.extend(timesteps.tolist()), latent[:, :4])[1]
    batch = make_batch(num_images=200, height=8, width=8)
    for start in range(0, 1000, 200):
        estimator.training_loss(batch, range(start, start + 200))
    assert min(asked) < 5 and max(asked) > 994
    counts = torch.histc(torch.tensor(asked, dtype=torch.float32), bins=10, min=0, max=1000)
    assert counts.min() > 60 and counts.max() < 140
    first = asked[:200]
    asked.clear()
    estimator.training_loss(batch, range(200))
    assert asked == first


@pytest.mark.parametrize("task", [Depth, Normals])
def test_garbage_where_the_truth_is_unknown_changes_nothing(bases, task):
    estimator, results = make_estimator(bases["v_prediction"], task()), []
    for garbage in (0.0, 1e4, -7.0, torch.inf, torch.nan):
        batch = small_batch()
        batch.targets["depth"].values[~batch.targets["depth"].mask] = garbage
        batch.targets["normals"].values[~batch.targets["normals"].mask.expand(-1, 3, -1, -1)] = garbage
        estimator.zero_grad()
        loss, _ = estimator.training_loss(batch, SEEDS)
        loss.backward()
        results.append((loss.item(), estimator.network.unet.conv_out.weight.grad.clone()))
    assert all(loss == results[0][0] and torch.equal(gradient, results[0][1]) for loss, gradient in results)
    assert results[0][0] > 0


def test_a_batch_of_which_nothing_is_known_has_no_loss_but_a_gradient_for_every_weight(bases):
    batch = small_batch()
    batch.targets["depth"].mask[:] = False
    estimator = make_estimator(bases["v_prediction"])
    loss, _ = estimator.training_loss(batch, SEEDS)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in estimator.network.unet.parameters())


def test_the_truth_of_depth_is_relative_and_far_where_unknown():
    batch = make_batch(1, 10, 11, modalities=["depth"])
    depth = torch.arange(110.0).reshape(1, 1, 10, 11) + 1
    batch.targets["depth"] = Target(depth, depth <= 101)  # 101 values: the quantiles are 3 and 99 metres
    image, known = Depth().target_image(batch)
    assert torch.equal(known, batch.targets["depth"].mask)
    assert image.shape == (1, 3, 10, 11)
    assert torch.equal(image[:, :1], image[:, 2:])
    values = image[0, 0].flatten()
    assert values[[0, 2, 50, 98, 100, 105]].tolist() == pytest.approx([-1, -1, 0, 1, 1, 1], abs=1e-6)
    assert torch.allclose(Depth().predict(image), image[:, :1])


def test_the_truth_of_a_flat_wall_is_finite():
    batch = make_batch(1, modalities=["depth"])
    batch.targets["depth"].values[:] = 3.0
    assert Depth().target_image(batch)[0].isfinite().all()


@pytest.mark.parametrize("frame", ["opengl", "dsine"])
def test_the_truth_of_normals_is_what_the_network_must_decode_to(frame):
    batch, task = make_batch(1), Normals(frame=frame)
    image, known = task.target_image(batch)
    error = (task.predict(image) - batch.targets["normals"].values).abs() * known
    assert error.max() < 2e-5
    assert (image * ~known == 0).all()
    assert torch.equal(
        image[:, 0] == batch.targets["normals"].values[:, 0], (torch.tensor(frame == "opengl") | (image[:, 0] == 0))
    )


def test_noise_is_coarser_at_late_timesteps_unless_told_otherwise(bases):
    def coarse_share(**options):
        drawn = {}
        estimator = make_estimator(bases["sample"], **options)

        def model_output(latent, timesteps):
            noise = (latent[0, 4:] - alpha(timesteps).sqrt() * clean[0]) / (1 - alpha(timesteps)).sqrt()
            drawn[timesteps.item()] = (F.avg_pool2d(noise, 8).var() / noise.var()).item()
            return latent[:, :4]

        def alpha(timesteps):
            return estimator.network.noise_process.scheduler.alphas_cumprod[timesteps]

        batch = make_batch(1, 128, 128)
        clean = estimator.network.encode(estimator.task.target_image(batch)[0])
        estimator.network.model_output = model_output
        for seed in range(24):
            estimator.training_loss(batch, [seed])
        early = [share for timestep, share in drawn.items() if timestep < 300]
        late = [share for timestep, share in drawn.items() if timestep > 700]
        return sum(early) / len(early), sum(late) / len(late)

    early, late = coarse_share()
    assert late > 2 * early and early < 0.05
    early, late = coarse_share(noise_strength=0.0)
    assert early < 0.03 and late < 0.03
    early, _ = coarse_share(anneal_noise=False)
    assert early > 0.06


def test_a_zero_terminal_snr_leaves_noise_alone_at_the_last_timestep_and_still_samples(bases):
    network = StableDiffusion(str(bases["v_prediction"]), zero_terminal_snr=True)
    alphas = network.noise_process.scheduler.alphas_cumprod
    assert alphas[-1] == 0 == network.noise_process.last_alpha
    assert alphas[0] == pytest.approx(1 - 0.00085, abs=1e-6)
    plain = StableDiffusion(str(bases["v_prediction"])).noise_process.scheduler.alphas_cumprod
    root = (plain.sqrt() - plain[-1].sqrt()) * plain[0].sqrt() / (plain[0].sqrt() - plain[-1].sqrt())
    assert torch.allclose(alphas, root.square(), atol=1e-5)
    image = make_batch().image
    assert DiffusionEstimator(network, Depth())(image).isfinite().all()
    with pytest.raises(InputError, match="holds no signal"):
        StableDiffusion(str(bases["epsilon"]), zero_terminal_snr=True)


def test_a_resumed_run_ends_with_the_same_weights_as_an_undisturbed_one(bases, tmp_path):
    weights = []
    for stops in ([5], [3, 5]):
        checkpoint = None
        for stop in stops:
            seed_everything(1, verbose=False)
            estimator = make_estimator(bases["v_prediction"], decay_steps=5, warmup_steps=2)
            folder = tmp_path / f"{len(stops)}"
            make_trainer(folder, max_steps=stop, deterministic=True).fit(
                estimator, TinyData(num_batches=4), ckpt_path=checkpoint, weights_only=True
            )
            checkpoint = folder / "last.ckpt"
        weights.append(trained_weights(estimator))
    assert torch.equal(*weights)


@pytest.mark.parametrize("task", [Depth, Normals])
def test_validation_measures_what_sampling_predicts_the_same_every_time(bases, tmp_path, task):
    estimator = make_estimator(bases["v_prediction"], task(), sampling=Sampling(2, ensemble_size=2))
    scores = []
    for seed in (1, 2):
        seed_everything(seed, verbose=False)
        trainer = make_trainer(tmp_path)
        trainer.validate(estimator, TinyData(), verbose=False)
        scores.append(trainer.callback_metrics[f"val/indoor/{estimator.task.headline_metric}"].item())
    assert scores[0] == scores[1]

    metric = task().make_metrics(DatasetInfo("tiny"))[0]
    for batch in TinyData().val_dataloader()[0]:
        estimator.task.update_metrics([metric], estimator(batch.image, [seed_from(key) for key in batch.key]), batch)
    assert scores[0] == pytest.approx(metric.compute()[estimator.task.headline_metric].item(), rel=1e-5)


def test_half_precision_trains_and_keeps_the_denoised_latent_in_float32(bases):
    estimator = make_estimator(bases["v_prediction"])
    batch = make_batch(1, 8, 8)
    seen = []
    model_output = estimator.network.model_output
    estimator.network.model_output = lambda latent, timesteps: (
        seen.append(latent.dtype),
        model_output(latent, timesteps),
    )[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = estimator.training_loss(batch, [1])
        estimator(batch.image, [1])
    assert loss.dtype == torch.float32
    assert set(seen) == {torch.float32}


def test_a_network_without_a_noisy_latent_cannot_denoise(tmp_path):
    base = build_base(tmp_path)
    with pytest.raises(InputError, match="must not be set to noise: none"):
        DiffusionEstimator(StableDiffusion(str(base), noise="none"), Depth())
    with pytest.raises(InputError, match=r"0 <= noise_strength <= 1, got 1.5"):
        DiffusionEstimator(StableDiffusion(str(base)), Depth(), noise_strength=1.5)
