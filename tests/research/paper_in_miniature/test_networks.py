"""Networks of the miniature: remembered latents are the encoder's, and a random base differs in its UNet alone."""

import torch

from lightning_modules import Depth, DiffusionEstimator, StableDiffusion
from research.paper_in_miniature.networks import TINY_BASE, RememberingStableDiffusion, write_random_base
from tests.helpers.tiny import make_batch


def test_remembered_latents_train_like_the_encoder_itself():
    batch = make_batch(num_images=3, height=32, width=48)
    plain = StableDiffusion(str(TINY_BASE))
    remembering = RememberingStableDiffusion({}, base=str(TINY_BASE))
    remembering.load_state_dict(plain.state_dict())
    remembering.encode(batch.image[1:2])  # one is known, two are new
    losses = [
        DiffusionEstimator(network, Depth()).training_loss(batch, [0, 1, 2])[0] for network in (plain, remembering)
    ]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    torch.testing.assert_close(remembering.encode(batch.image), plain.encode(batch.image), rtol=0, atol=1e-5)


def test_the_encoder_sees_every_image_once(monkeypatch):
    network, seen = RememberingStableDiffusion({}, base=str(TINY_BASE)), []
    encode = network.vae.encode
    monkeypatch.setattr(network.vae, "encode", lambda image: seen.append(len(image)) or encode(image))
    images = make_batch(num_images=4, height=32, width=32).image
    for chosen in ([0, 1], [1, 2], [2, 0], [3]):
        network.encode(images[chosen])
    network.encode(images.flip(-1))  # a mirrored image is another one
    assert seen == [2, 1, 1, 4]


def test_random_bases_share_all_but_the_unet_with_the_tiny_base(tmp_path):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        write_random_base(tmp_path / name, seed)
    tiny, first, again, other = (
        StableDiffusion(str(base)) for base in (TINY_BASE, *(tmp_path / name for name in ("first", "again", "other")))
    )
    weights = [network.unet.mid_block.resnets[0].conv1.weight for network in (tiny, first, again, other)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[3])
    assert all(map(torch.equal, tiny.vae.state_dict().values(), first.vae.state_dict().values()))
    assert torch.equal(tiny.prompt_embedding, first.prompt_embedding)
