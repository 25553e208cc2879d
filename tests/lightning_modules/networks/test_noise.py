import pytest
import torch
import torch.nn.functional as F

from lightning_modules.networks.noise import draw_noise, seed_from

LATENT = torch.zeros(3, 4, 32, 40)


@pytest.mark.parametrize("kind", ["gaussian", "pyramid"])
def test_the_noise_of_an_image_depends_on_its_seed_alone(kind):
    torch.manual_seed(0)
    first = draw_noise(kind, LATENT, [5, 6, 7])
    torch.manual_seed(1)
    again = draw_noise(kind, LATENT[:1], [6])
    assert torch.equal(first[1:2], again)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("kind", ["gaussian", "pyramid"])
def test_noise_has_the_variance_that_the_network_was_trained_with(kind):
    noise = draw_noise(kind, torch.zeros(64, 4, 32, 40), range(64))
    assert noise.std().item() == pytest.approx(1, abs=0.05)


def test_pyramid_noise_is_coarser_than_gaussian_noise():
    def share_of_coarse(kind):
        noise = draw_noise(kind, torch.zeros(32, 4, 32, 40), range(32))
        return F.avg_pool2d(noise, 8).var() / noise.var()

    assert share_of_coarse("gaussian") < 0.03
    assert share_of_coarse("pyramid") > 0.1


@pytest.mark.parametrize("kind", ["zeros", "none"])
def test_without_noise_there_are_zeros(kind):
    assert not draw_noise(kind, LATENT, [1, 2, 3]).any()


def test_noise_takes_the_dtype_of_the_latent():
    assert draw_noise("gaussian", LATENT.bfloat16(), [1, 2, 3]).dtype == torch.bfloat16


def test_a_seed_is_the_same_in_every_process_and_differs_with_every_part():
    assert seed_from("0", 3, 17, "sample") == 3613562715566622008
    assert len({seed_from(a, b) for a in range(20) for b in range(20)}) == 400
    assert seed_from(1, 12) != seed_from(11, 2)
