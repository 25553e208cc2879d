"""A base family from outside the packages, a transformer of flow matching, does what Stable Diffusion does."""

import copy

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

from geometry.errors import InputError
from lightning_modules import Depth, DiffusionEstimator, LatentNetwork, Sampling, SingleStepEstimator
from lightning_modules.inference.loading import build_estimator
from lightning_modules.inference.predictor import Predictor
from lightning_modules.networks.codec import AutoencoderKLCodec
from lightning_modules.networks.compilation import Compilation, compiled_regions, ran_eagerly
from lightning_modules.networks.denoiser import Denoiser
from lightning_modules.networks.flow_matching import FlowMatching
from lightning_modules.networks.lora import LoRA
from tests.helpers.tiny import make_batch

pytestmark = pytest.mark.filterwarnings("ignore")


class JointDenoiser(Denoiser):
    """Stable Diffusion 3's transformer under a fixed prompt."""

    latent_multiple = 2

    @property
    def largest_latent(self):
        return self.model.config["pos_embed_max_size"] * self.latent_multiple

    def model_output(self, latents, timesteps, conditioning):
        batch = latents.shape[0]
        return self.model(
            latents,
            encoder_hidden_states=conditioning["prompt"].expand(batch, -1, -1),
            pooled_projections=conditioning["pooled_prompt"].expand(batch, -1),
            timestep=timesteps.expand(batch),
            return_dict=False,
        )[0]


class TinyFlow(LatentNetwork):
    """A random network of that kind."""

    def __init__(
        self,
        input_mode: str = "concatenated",
        lora: LoRA | None = None,
        compile: Compilation | None = None,
        timestep: float | None = None,
        checkpointing: bool = False,
    ):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            vae, transformer = _random_vae(), _random_transformer(8 if input_mode == "concatenated" else 4)
            conditioning = {"prompt": torch.randn(1, 3, 16), "pooled_prompt": torch.randn(1, 12)}
        denoiser = JointDenoiser(transformer, conditioning, input_mode, lora, checkpointing)
        process = FlowMatching(FlowMatchEulerDiscreteScheduler(shift=3.0))
        super().__init__(AutoencoderKLCodec(vae), denoiser, process, timestep=timestep, compile=compile)


def _random_vae():
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[8] * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=1.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _random_transformer(in_channels):
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=in_channels,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=12,
        pos_embed_max_size=32,
    )


def gradient_of(network):
    SingleStepEstimator(network, Depth()).training_loss(make_batch(), [1, 2])[0].backward()
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def test_parts_are_named_and_counted_by_their_family():
    network = TinyFlow()
    assert {name.split(".")[0] for name in network.state_dict()} == {"vae", "transformer"}
    assert (network.codec.pixels_per_latent, network.size_multiple) == (4, 8)
    with pytest.raises(InputError, match=r"32x36 pixels .* multiples of 8"):
        network.encode(torch.zeros(1, 3, 32, 36))  # a whole number of latent pixels, but of no whole patches
    assert network.codec.known_latents(torch.ones(1, 1, 32, 40).bool()).shape == (1, 1, 8, 10)


def test_images_beyond_the_transformers_positions_are_refused_in_one_line():
    with pytest.raises(InputError, match=r"32x264 pixels .* sides of at most 256"):
        TinyFlow().encode(torch.zeros(1, 3, 32, 264))


def test_a_single_step_trains_the_transformer_alone():
    gradients = gradient_of(TinyFlow())
    assert gradients and all(name.startswith("transformer.") for name in gradients)
    assert gradients["transformer.pos_embed.proj.weight"].abs().sum() > 0


def test_checkpointing_changes_no_gradient():
    plain, checkpointed = gradient_of(TinyFlow()), gradient_of(TinyFlow(checkpointing=True))
    assert all(torch.allclose(gradient, checkpointed[name], atol=1e-7) for name, gradient in plain.items())


def test_a_diffusion_estimator_learns_the_velocity_and_samples_with_eulers_steps():
    network = TinyFlow()
    estimator = DiffusionEstimator(network, Depth(), Sampling(num_steps=2, ensemble_size=2))
    loss, _ = estimator.training_loss(make_batch(), [1, 2])
    loss.backward()
    assert network.transformer.pos_embed.proj.weight.grad.abs().sum() > 0
    image = make_batch().image
    prediction = estimator(image, [1, 2])
    assert prediction.shape == (2, 1, 32, 32) and prediction.isfinite().all() and prediction.std() > 0


def test_one_step_of_sampling_from_zeros_is_the_single_step():
    network, image = TinyFlow(), make_batch().image
    expected = SingleStepEstimator(network, Depth())(image)
    for end in ("clean", "scheduler"):
        sampled = DiffusionEstimator(network, Depth(), Sampling(1, noise="zeros", end=end))(image)
        assert torch.allclose(sampled, expected, atol=1e-6)


def test_sampling_that_flow_matching_does_not_have_is_refused():
    with pytest.raises(InputError, match="must be trailing, not leading"):
        DiffusionEstimator(TinyFlow(), Depth(), Sampling(2, "leading"))


def test_a_network_that_sees_the_image_alone_is_refused_by_the_diffusion_estimator():
    for mode in ("image", "residual"):
        with pytest.raises(InputError, match="sees the image alone"):
            DiffusionEstimator(TinyFlow(mode), Depth())


def test_a_residual_network_subtracts_its_output_from_the_latent_of_the_image():
    network = TinyFlow("residual", timestep=499.0)
    latent, prompt = torch.randn(1, 4, 8, 8), network.prompt
    with torch.no_grad():
        output = network.transformer(latent, prompt, network.pooled_prompt, torch.tensor([499.0])).sample
        assert torch.equal(network.clean_latent(latent, torch.zeros_like(latent)), latent - output)
    assert gradient_of(network)


def test_the_predictor_takes_images_of_any_size():
    predictor = Predictor(SingleStepEstimator(TinyFlow(), Depth()), processing_res=0, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    prediction = predictor(image)
    assert prediction.shape == (37, 51) and np.isfinite(prediction).all()


def test_a_config_builds_it_with_adapters_and_compiled_blocks():
    network = {
        "class_path": "tests.lightning_modules.networks.test_other_family.TinyFlow",
        "init_args": {"lora": {"rank": 2}, "compile": {"backend": "aot_eager", "regions": "blocks"}},
    }
    model = {"network": network, "task": {"class_path": "lightning_modules.Depth"}}
    built = build_estimator({"class_path": "lightning_modules.SingleStepEstimator", "init_args": model}).network
    assert {type(block).__name__ for block in compiled_regions(built.transformer)} == {"JointTransformerBlock"}
    found, expected = gradient_of(built), gradient_of(TinyFlow(lora=LoRA(rank=2)))
    assert not ran_eagerly(built.transformer)
    assert found.keys() == expected.keys()
    assert all(".lora_" in name for name in found) and any(".to_q.lora_A" in name for name in found)


def test_compiled_blocks_have_the_gradients_of_plain_ones():
    compiled = TinyFlow(compile=Compilation(backend="aot_eager", regions="blocks"))
    found, expected = gradient_of(compiled), gradient_of(TinyFlow())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item() + 1e-8), name


def test_a_part_of_another_family_is_not_compiled_in_silence():
    with pytest.raises(InputError, match=r"no 'unet'; choose from transformer, encoder, decoder"):
        TinyFlow(compile=Compilation(backend="eager", parts=["unet"]))


def test_blocks_that_are_sharded_are_those_of_the_transformer():
    assert len(TinyFlow().denoiser.sharded_blocks()) == 2


def test_exported_parts_hold_the_merged_adapters():
    network = TinyFlow(lora=LoRA(rank=2))
    for name, weight in network.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.2)
    merged, fresh = copy.deepcopy(network), TinyFlow()
    fresh.transformer.load_state_dict(network.export_parts()["transformer"].state_dict())
    image = make_batch().image
    with torch.no_grad():
        assert torch.allclose(fresh(image), merged(image), atol=1e-4)
        assert not torch.allclose(fresh(image), TinyFlow()(image), atol=1e-2)
