"""With ``channels_last``, convolutions get what they compute on in that layout, backward too.

Two kinds of 1x1 convolutions of a UNet do not, because diffusers itself lays their inputs out plane by plane: those of
shortcuts in training (for the strides of gradients under DDP) and those at the end of attention blocks.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from tests.helpers.tiny import build_base, make_batch

CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


class Layouts(TorchDispatchMode):
    """Counts convolutions whose inputs, or gradients, lie plane by plane: shapes of input and kernel."""

    def __init__(self):
        super().__init__()
        self.planar, self.all = [], 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation in CONVOLUTIONS:
            is_backward = operation is CONVOLUTIONS[1]
            images, weight = (args[:2], args[2]) if is_backward else (args[:1], args[1])
            self.all += 1
            for image in images:
                if not image.is_contiguous(memory_format=torch.channels_last) and 0 not in image.stride():
                    self.planar.append((tuple(image.shape), tuple(weight.shape[2:])))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
def test_the_codec_computes_channel_by_channel(tmp_path, again):
    network = StableDiffusion(str(build_base(tmp_path)), channels_last=True, decoder_checkpointing=again)
    image = make_batch(2, 32, 48).image
    with Layouts() as layouts:
        latent = network.encode(image).requires_grad_()
        network.decode(latent).square().mean().backward()
    # The photo itself lies plane by plane, and so may the gradient of the loss.
    assert {shape[1] for shape, _ in layouts.planar} <= {3}, layouts.planar
    assert layouts.all > 20


def test_in_a_step_only_the_convolutions_of_one_pixel_get_another_layout(tmp_path):
    estimator = SingleStepEstimator(StableDiffusion(str(build_base(tmp_path)), channels_last=True), Depth())
    estimator.network.train()
    with Layouts() as layouts:
        estimator.training_loss(make_batch(2, 32, 48), [0, 1])[0].backward()
    others = [shape for shape, kernel in layouts.planar if kernel != (1, 1) and shape[1] != 3]
    # One gradient, that of the image which enters the attention in the middle.
    assert len(others) <= 1 and len(layouts.planar) < layouts.all / 5, layouts.planar
