"""With ``channels_last``, convolutions get what they compute on in that layout, backward too.

diffusers' attention blocks hand images on plane by plane, so that some convolutions of a UNet after them do not.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from tests.helpers.tiny import build_base, make_batch

CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


class Layouts(TorchDispatchMode):
    """Counts convolutions whose inputs, or gradients, lie plane by plane."""

    def __init__(self):
        super().__init__()
        self.planar, self.all = [], 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation in CONVOLUTIONS:
            images = args[:2] if operation is CONVOLUTIONS[1] else args[:1]
            self.all += 1
            for image in images:
                if not image.is_contiguous(memory_format=torch.channels_last) and 0 not in image.stride():
                    self.planar.append((str(operation), tuple(image.shape)))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
def test_the_codec_computes_channel_by_channel(tmp_path, again):
    network = StableDiffusion(str(build_base(tmp_path)), channels_last=True, decoder_checkpointing=again)
    image = make_batch(2, 32, 48).image
    with Layouts() as layouts:
        latent = network.encode(image).requires_grad_()
        network.decode(latent).square().mean().backward()
    # The photo itself lies plane by plane, and so may the gradient of the loss.
    assert {shape[1] for _, shape in layouts.planar} <= {3}, layouts.planar
    assert layouts.all > 20


def test_at_most_a_fifth_of_the_convolutions_of_a_step_get_another_layout(tmp_path):
    estimator = SingleStepEstimator(StableDiffusion(str(build_base(tmp_path)), channels_last=True), Depth())
    estimator.network.train()
    with Layouts() as layouts:
        estimator.training_loss(make_batch(2, 32, 48), [0, 1])[0].backward()
    assert len(layouts.planar) < layouts.all / 5, layouts.planar
