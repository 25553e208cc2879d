"""Every base family is exported through the three parts of its network, or says in one line why it is not."""

import numpy as np
import pytest
import torch

from geometry.errors import InputError
from lightning_modules import Depth, PretrainedNetwork, SingleStepEstimator
from lightning_modules.export import ExportOptions, export_model
from lightning_modules.export.programs import Program
from lightning_modules.inference import Predictor
from lightning_modules.inference.loading import LoadedModel
from lightning_modules.networks.lora import LoRA
from tests.lightning_modules.inference.runs import photo
from tests.tiny_bases import KINDS, write_base

pytestmark = pytest.mark.filterwarnings("ignore")


# Their models decide by the size of an image in Python, or take images one by one.
UNTRACEABLE = {"qwen_image": "longer side", "qwen_image_edit_plus": "longer side", "z_image": "one by one"}


def trained(folder, kind):
    """A model of a family with adapters that are not those that it began with."""
    network = PretrainedNetwork(str(write_base(folder / "base", kind)), lora=LoRA(rank=2), input_mode="image")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, weight in network.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(weight, std=0.2)
    estimator = SingleStepEstimator(network, Depth()).eval().requires_grad_(False)
    return LoadedModel(estimator, "x.ckpt", str(folder / "base"), {})


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_traced_predicts_what_the_network_does_and_what_is_not_says_why(tmp_path, kind):
    model = trained(tmp_path, kind)
    with pytest.raises(InputError, match="no pipeline of diffusers holds a PretrainedNetwork; export it with --format"):
        export_model(model, ExportOptions(tmp_path / "out"))
    if kind in UNTRACEABLE:
        with pytest.raises(InputError, match=UNTRACEABLE[kind]):
            Program(model.estimator, torch.float32)
        return
    multiple = model.estimator.network.size_multiple
    image = photo(3 * multiple - 1, 5 * multiple - 3)
    found = Program(model.estimator, torch.float32)(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0, 0]
    assert np.abs(found.numpy() - Predictor(model.estimator, processing_res=0, device="cpu")(image)).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNTRACEABLE])
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_a_program_of_any_size_is_written(tmp_path, kind, form):
    pytest.importorskip("onnxruntime")
    assert export_model(trained(tmp_path, kind), ExportOptions(tmp_path / "out", form)).agreement.maximum < 1e-3
