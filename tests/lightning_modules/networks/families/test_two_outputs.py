"""An editor gives two outputs in one evaluation: at the tokens of its noisy latent, and at the image's (FE2E)."""

import pytest
import torch

from geometry.errors import InputError
from lightning_modules import Depth, DiffusionEstimator, Normals, SeveralTasks, SingleStepEstimator
from tests.lightning_modules.networks.families.test_against_pipelines import EDITORS, base, build, image

__all__ = ["base"]
pytestmark = pytest.mark.filterwarnings("ignore")
OUTPUTS = ["depth", "normals"]


def as_latent(tokens, like, patch):
    """Rows of tokens (1,L,D) as a latent of the shape of another; a token holds patch by patch pixels per channel."""
    _, channels, height, width = like.shape
    pixels = tokens[0].view(height // patch, width // patch, channels, patch, patch)
    return pixels.permute(2, 0, 3, 1, 4).reshape(1, channels, height, width)


@pytest.mark.parametrize("base", EDITORS, indirect=True)
def test_the_first_output_is_that_of_a_single_one_and_the_second_is_said_at_the_image_s_tokens(base):
    one, two = build(base, "sequence"), build(base, "sequence", outputs=OUTPUTS)
    said = []
    two.denoiser.model.register_forward_hook(lambda model, given, result: said.append(result[0]))
    with torch.no_grad():
        expected = one.predict_latent(image())
        depth, normals = two.predict_latents(image(), outputs=OUTPUTS)
        (again,) = two.predict_latents(image(), outputs=["normals"])
    assert len(said) == 2, "one evaluation each time"
    torch.testing.assert_close(depth, expected)
    at_image = said[0][:, said[0].shape[1] // 2 :]
    torch.testing.assert_close(normals, as_latent(at_image, depth, two.denoiser.latent_multiple))
    torch.testing.assert_close(again, normals)
    assert (normals - depth).abs().max() > 1e-3


@pytest.mark.parametrize("base", ["flux_kontext"], indirect=True)
def test_what_two_outputs_cannot_be_is_one_line(base):
    for options, match in (
        ({"input_mode": "image", "outputs": OUTPUTS}, "they need input_mode: sequence, not image"),
        ({"input_mode": "sequence", "outputs": ["depth"]}, "network.outputs needs two names"),
        ({"input_mode": "sequence", "outputs": ["depth", "depth"]}, "network.outputs needs different names"),
    ):
        with pytest.raises(InputError, match=match):
            build(base, **options)
    both = SeveralTasks([Depth(), Normals()])
    with pytest.raises(InputError, match=r"write network.switch, or for an editor network.outputs, for instance"):
        SingleStepEstimator(build(base, "sequence"), both)
    network = build(base, "sequence", outputs=["depth", "image"])
    with pytest.raises(InputError, match=r"network.outputs \['depth', 'image'\] has no output for normals"):
        SingleStepEstimator(network, both)
    with pytest.raises(InputError, match=r"network.outputs .* has no output 'normals'"):
        network.predict_latents(image(), outputs=["normals"])
    with pytest.raises(InputError, match="a diffusion estimator"):
        DiffusionEstimator(build(base, "sequence", outputs=OUTPUTS), Depth())
