"""Every base family is exported through the three parts of its network, or says in one line why it is not."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from geometry.errors import InputError
from geometry.modalities.albedo import Albedo
from lightning_modules import Depth, Normals, PretrainedNetwork, SingleStepEstimator, Task
from lightning_modules.export import ExportOptions, export_model
from lightning_modules.export.programs import Program
from lightning_modules.inference import Predictor, load_model
from lightning_modules.inference.loading import LoadedModel
from lightning_modules.networks.lora import LoRA
from lightning_modules.trained_on import describe_training
from tests.lightning_modules.inference.runs import photo
from tests.tiny_bases import KINDS, write_base

pytestmark = pytest.mark.filterwarnings("ignore")


# Their models decide by the size of an image in Python, or take images one by one.
UNTRACEABLE = {"qwen_image": "longer side", "qwen_image_edit_plus": "longer side", "z_image": "one by one"}


def trained(folder, kind, task=None, input_mode="image"):
    """A model of a family with adapters that are not those that it began with."""
    network = PretrainedNetwork(str(write_base(folder / "base", kind)), lora=LoRA(rank=2), input_mode=input_mode)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, weight in network.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(weight, std=0.2)
    estimator = SingleStepEstimator(network, task or Depth()).eval().requires_grad_(False)
    return LoadedModel(estimator, "x.ckpt", str(folder / "base"), {})


# What a person runs who has diffusers, and not this project.
ELSEWHERE = """
import sys
import numpy as np
from diffusers import DiffusionPipeline
folder, image, found = sys.argv[1:]
pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
np.save(found, pipeline(np.load(image)).prediction)
assert not {"geometry", "lightning_modules", "lightning"} & set(sys.modules)
"""


def trained_at(model, resolution):
    model.estimator.trained_on = describe_training(
        {"rooms": (resolution // 2, resolution)}, [model.estimator.task.modality]
    )
    return model


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_brings_the_pipeline_that_predicts_what_the_model_does_without_this_project(tmp_path, kind):
    model = trained_at(trained(tmp_path, kind), 96)
    export_model(model, ExportOptions(tmp_path / "out"))
    image = photo(45, 70)
    np.save(tmp_path / "image.npy", image)
    files = [str(tmp_path / name) for name in ("out", "image.npy", "found.npy")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", ELSEWHERE, *files], cwd=tmp_path, env=environment, check=True)
    expected = Predictor(model.estimator, device="cpu")(image)
    assert np.abs(np.load(tmp_path / "found.npy")[0, ..., 0] - expected).max() < 1e-4


@pytest.mark.parametrize(
    "task", [Depth(parameterization="log"), Normals(frame="dsine"), Task(Albedo())], ids=["log", "dsine", "albedo"]
)
def test_a_folder_publishes_as_the_modality_does(tmp_path, task):
    model = trained(tmp_path, "flux_kontext", task, input_mode="sequence")
    agreements = export_model(model, ExportOptions(tmp_path / "out", dtype="bfloat16")).agreement
    assert agreements.maximum < 1e-4
    assert (tmp_path / "out/transformer/diffusion_pytorch_model.bf16.safetensors").is_file()
    assert not [file for file in (tmp_path / "out").glob("**/*.json") if str(tmp_path) in file.read_text()]
    with pytest.raises(InputError, match=r"brings its own pipeline, which is not run here\. Load it with diffusers"):
        load_model(tmp_path / "out")


def test_a_folder_of_a_residual_is_right_and_that_of_a_network_that_sees_noise_is_refused(tmp_path):
    model = trained(tmp_path, "stable_diffusion_3", input_mode="residual")
    assert export_model(model, ExportOptions(tmp_path / "out")).agreement.maximum < 1e-4
    model.estimator.network.noise = "gaussian"
    with pytest.raises(InputError, match=r"no pipeline of diffusers holds .*: it was trained with noise: gaussian"):
        export_model(model, ExportOptions(tmp_path / "other"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_traced_predicts_what_the_network_does_and_what_is_not_says_why(tmp_path, kind):
    model = trained(tmp_path, kind)
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
