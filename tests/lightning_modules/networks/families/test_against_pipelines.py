"""Every family computes what diffusers' own pipeline computes in a step of its own ``__call__``."""

import pytest
import torch

from lightning_modules import PretrainedNetwork
from tests.lightning_modules.networks.families.stock_pipelines import GUIDANCE, run, whole_steps
from tests.tiny_bases import KINDS, write_base

pytestmark = pytest.mark.filterwarnings("ignore")

EDITORS = ("flux_kontext",)
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def base(request, tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("bases") / request.param, request.param)


def build(base, input_mode, **options):
    config = {} if "flux" not in base.name or "flux2" in base.name else {"guidance": GUIDANCE}
    return PretrainedNetwork(str(base), input_mode, **config, **options).eval()


def picture(height=48, width=32):
    generator = torch.Generator().manual_seed(3)
    return whole_steps(torch.rand(1, 3, height, width, generator=generator) * 2 - 1)


@pytest.mark.parametrize("base", KINDS, indirect=True)
@pytest.mark.parametrize("sigma", [1.0, 0.4])
def test_model_output_and_clean_latent_from_text_alone(base, sigma):
    network = build(base, "image")
    sample = torch.randn(1, 16, 6, 4, generator=torch.Generator().manual_seed(1))
    step = run(base, sample, sigma)
    with torch.no_grad():
        output = network.model_output(sample, torch.tensor(step.timestep))
        x0 = network.noise_process.predict_x0(output, sample, step.timestep)
        decoded = network.decode(x0)
    assert step.model_output.std() > 0.05
    torch.testing.assert_close(output, step.model_output, **TOLERANCE)
    torch.testing.assert_close(x0, step.x0, **TOLERANCE)
    torch.testing.assert_close((decoded / 2 + 0.5).clamp(0, 1), step.decoded, **TOLERANCE)


@pytest.mark.parametrize("base", EDITORS, indirect=True)
def test_an_editor_sees_the_image_in_its_sequence(base):
    network, image = build(base, "sequence"), picture()
    with torch.no_grad():
        latent = network.encode(image)
        noise = torch.zeros_like(latent)
        output = network.model_output(network.denoiser.input_of(latent, noise), network.timestep)
        decoded = network(image)
    step = run(base, noise, 1.0, image[0])
    assert step.timestep == network.timestep.item()
    torch.testing.assert_close(output, step.model_output, **TOLERANCE)
    torch.testing.assert_close((decoded / 2 + 0.5).clamp(0, 1), step.decoded, **TOLERANCE)
    other = run(base, noise, 1.0, -image[0])
    assert not torch.allclose(other.model_output, step.model_output, atol=1e-3)
