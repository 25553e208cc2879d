import torch

from lightning_modules.networks.sizes import pad_to_multiple, resize_prediction


def test_padding_keeps_every_pixel_in_its_place_and_repeats_the_border():
    image = torch.rand(1, 3, 13, 22)
    padded = pad_to_multiple(image, 8)
    assert padded.shape == (1, 3, 16, 24)
    assert torch.equal(padded[..., :13, :22], image)
    assert torch.equal(padded[..., 13:, :22], image[..., -1:, :].expand(-1, -1, 3, -1))
    assert pad_to_multiple(image, 1) is image


def test_a_resized_prediction_lies_where_it_lay():
    ramp = torch.linspace(0, 1, 8).expand(1, 1, 6, 8).contiguous()
    larger = resize_prediction(ramp, (12, 16))
    assert larger.shape == (1, 1, 12, 16)
    # Centres of pixels: the middle of the image stays the middle.
    assert torch.allclose(larger[..., 7:9].mean(), torch.tensor(0.5))
    assert resize_prediction(ramp, (6, 8)) is ramp
