"""Every family computes what diffusers' own pipeline computes in a step of its own ``__call__``."""

import pytest
import torch

from lightning_modules import PretrainedNetwork
from lightning_modules.networks.lora import LoRA
from tests.lightning_modules.networks.families.stock_pipelines import GUIDANCE, run, whole_steps
from tests.tiny_bases import KINDS, write_base

pytestmark = pytest.mark.filterwarnings("ignore")

# The pipeline of Qwen-Image's editor takes no prompt without an image, and no image as small as these.
FROM_TEXT = [kind for kind in KINDS if kind != "qwen_image_edit_plus"]
EDITORS = ("flux_kontext", "qwen_image_edit_plus", "flux_2_klein")
# Tokens that fill a sequence up to a multiple of 32, where it is none.
UNUSED = {"transformer.x_pad_token", "transformer.cap_pad_token"}
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
SIZE = (96, 64)


@pytest.fixture(scope="module")
def base(request, tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("bases") / request.param, request.param)


def build(base, input_mode, **options):
    guidance = {"guidance": GUIDANCE} if base.name in ("flux", "flux_kontext") else {}
    return PretrainedNetwork(str(base), input_mode, **guidance, **options).eval()


def image():
    generator = torch.Generator().manual_seed(3)
    return whole_steps(torch.rand(1, 3, *SIZE, generator=generator) * 2 - 1)


def shown(decoded):
    return (decoded / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("base", FROM_TEXT, indirect=True)
@pytest.mark.parametrize("sigma", [1.0, 0.4])
def test_model_output_and_clean_latent_from_text_alone(base, sigma):
    network = build(base, "image")
    with torch.no_grad():
        sample = torch.randn(network.encode(image()).shape, generator=torch.Generator().manual_seed(1))
        step = run(base, sample, sigma, SIZE)
        output = network.model_output(sample, torch.tensor(step.timestep))
        x0 = network.noise_process.predict_x0(output, sample, step.timestep)
        decoded = network.decode(x0)
    assert step.model_output.std() > 0.05
    torch.testing.assert_close(output, step.model_output, **TOLERANCE)
    torch.testing.assert_close(x0, step.x0, **TOLERANCE)
    torch.testing.assert_close(shown(decoded), step.decoded, **TOLERANCE)


@pytest.mark.parametrize("base", EDITORS, indirect=True)
def test_an_editor_sees_the_image_in_its_sequence(base, monkeypatch):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as editor

    for name in ("VAE_IMAGE_SIZE", "CONDITION_IMAGE_SIZE"):  # areas that the pipeline brings every image to
        monkeypatch.setattr(editor, name, SIZE[0] * SIZE[1])
    network, photo = build(base, "sequence"), image()
    # Its encoder would look at the image as well.
    given = {"prompt": None, "prompt_embeds": network.prompt_embedding} if "qwen" in base.name else {}
    with torch.no_grad():
        latent = network.encode(photo)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
        output = network.model_output(network.denoiser.input_of(latent, noise), network.timestep)
        decoded = network.decode(network.clean_latent(latent, noise))
        step, other = (run(base, noise, 1.0, SIZE, each[0], **given) for each in (photo, -photo))
    assert step.timestep == network.timestep.item()
    torch.testing.assert_close(output, step.model_output, **TOLERANCE)
    torch.testing.assert_close(shown(decoded), step.decoded, **TOLERANCE)
    assert (other.model_output - step.model_output).abs().max() > 1e-3, "the image was seen"


@pytest.mark.parametrize("base", KINDS, indirect=True)
def test_a_widened_first_layer_says_of_two_equal_latents_what_the_base_says_of_one(base):
    narrow, wide = build(base, "image"), build(base, "concatenated")
    with torch.no_grad():
        latent = narrow.encode(image())
        expected = narrow.model_output(latent, narrow.timestep)
        found = wide.model_output(wide.denoiser.input_of(latent, latent), wide.timestep)
        other = wide.model_output(wide.denoiser.input_of(latent, -latent), wide.timestep)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert (other - expected).abs().max() > 1e-3


@pytest.mark.parametrize("base", KINDS, indirect=True)
@pytest.mark.parametrize("options", [{}, {"lora": LoRA(rank=2)}], ids=["all weights", "adapters"])
def test_gradients_are_finite_and_reach_all_that_trains(base, options):
    network = build(base, "residual", timestep=499, train_decoder=True, checkpointing=True, **options).train()
    for name, weight in network.named_parameters():
        if ".lora_B." in name:  # which begin at 0, and would hide the adapters behind them
            torch.nn.init.normal_(weight, std=0.1)
    network(image()).square().mean().backward()
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in trained.values())
    assert not [name for name, weight in trained.items() if not weight.grad.any() and name not in UNUSED]
    assert {name.split(".")[0] for name in trained} == {network.denoiser.name, "vae"}
    frozen = [name for name, weight in network.named_parameters() if not weight.requires_grad]
    assert not [name for name in frozen if network.get_parameter(name).grad is not None]
