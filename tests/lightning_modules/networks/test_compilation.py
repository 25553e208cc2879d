"""Compiled networks learn what plain ones learn, and say how much of them is compiled."""

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch._dynamo.utils import counters

from geometry.errors import InputError
from lightning_modules import StableDiffusion
from lightning_modules.networks.compilation import Compilation, compiled_regions, forget_eager_runs, ran_eagerly
from lightning_modules.networks.upsampling import double, make_upsampling_compilable
from tests.helpers.tiny import build_base

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Decoder(nn.Module):
    """The part of a VAE's decoder whose gradient torch 2.13 loses: frozen layers around an upsampling layer."""

    def __init__(self):
        super().__init__()
        self.before = ResnetBlock2D(in_channels=8, out_channels=8, temb_channels=None, groups=4)
        self.upsample = Upsample2D(8, use_conv=True)
        self.after = nn.Conv2d(8, 8, 3, padding=1)
        self.requires_grad_(False)

    def forward(self, latent):
        return self.after(self.upsample(self.before(latent, None)))


def gradient_of(module, latent):
    leaf = latent.clone().requires_grad_()
    module(leaf).square().mean().backward()
    return leaf.grad


def test_the_gradient_through_a_compiled_upsampling_layer_is_that_of_the_plain_one():
    torch.manual_seed(0)
    decoder, latent = Decoder(), torch.randn(1, 8, 8, 12)
    plain = gradient_of(decoder, latent)
    Compilation(dynamic=False).apply("decoder", decoder)
    compiled = gradient_of(decoder, latent)
    assert compiled.norm() > 0
    assert (compiled - plain).norm() < 1e-5 * plain.norm()


class TestUpsampling:
    @pytest.mark.parametrize("size", [None, (10, 14), (9, 13), (9, 14), (11, 14), (8, 14), (20, 28)])
    def test_compiled_layers_give_the_same_bits_at_every_size(self, size):
        torch.manual_seed(0)
        layer, image = Upsample2D(3), torch.randn(2, 3, 5, 7)
        plain = layer(image, size)
        make_upsampling_compilable(layer)
        assert torch.equal(torch.compile(layer, backend="aot_eager")(image, size), plain)
        assert torch.equal(layer(image, size), plain)

    def test_the_gradient_scatters_nothing(self):
        """A scatter is what the compiler may order wrongly, and on GPUs adds in any order."""
        operations = []

        def note(graph, inputs):
            operations.extend(str(node.target) for node in graph.graph.nodes)
            return graph.forward

        backend = torch._dynamo.backends.common.aot_autograd(fw_compiler=note, bw_compiler=note)
        layer = Upsample2D(3)
        make_upsampling_compilable(layer)
        compiled = torch.compile(layer, backend=backend)
        compiled(torch.randn(1, 3, 4, 4, requires_grad=True)).sum().backward()
        compiled(torch.randn(1, 3, 4, 4, requires_grad=True), (7, 8)).sum().backward()
        assert operations
        assert not [name for name in operations if "index" in name or "upsample" in name]

    def test_every_pixel_is_repeated(self):
        image = torch.arange(6.0).reshape(1, 1, 2, 3)
        assert torch.equal(double(image), nn.functional.interpolate(image, scale_factor=2.0, mode="nearest"))


class TestBlocks:
    @pytest.fixture(scope="class")
    def base(self, tmp_path_factory):
        return build_base(tmp_path_factory.mktemp("base"))

    def test_every_block_is_compiled_at_every_image_size(self, base):
        """With torch's own limit of 8 compilations, most blocks run as they are from the second size on."""
        network = StableDiffusion(str(base), compile=Compilation(backend="eager", regions="blocks", dynamic=False))
        parts = network.compilable_parts()
        num_blocks = {name: len(compiled_regions(part)) for name, part in parts.items()}
        assert num_blocks == {"unet": 12, "encoder": 5, "decoder": 8}
        for side in (16, 32, 48, 64):
            for part in parts.values():
                forget_eager_runs(part)
            with torch.no_grad():
                network(torch.zeros(1, 3, side, side))
            assert not [block for part in parts.values() for block in ran_eagerly(part)], side

    def test_a_block_that_is_not_compiled_is_noticed(self, base):
        network = StableDiffusion(str(base), compile=Compilation(backend="eager", regions="blocks", dynamic=False))
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            network(torch.zeros(1, 3, 16, 16))
        assert len(ran_eagerly(network.unet)) == 12
        forget_eager_runs(network.unet)
        assert not ran_eagerly(network.unet)

    def test_a_part_without_known_blocks_is_refused_not_left_uncompiled(self):
        with pytest.raises(InputError, match="the decoder has no blocks that are known"):
            Compilation(backend="eager", regions="blocks").apply("decoder", nn.Linear(2, 2), ["Block"])
