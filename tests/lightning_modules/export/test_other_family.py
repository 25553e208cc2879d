"""A family from outside the packages is exported from its checkpoint, through the three parts of its network alone."""

import json

import numpy as np
import pytest
import torch
import yaml

import train
from geometry.errors import InputError
from lightning_modules import Normals, SingleStepEstimator
from lightning_modules.export import ExportOptions, export_model
from lightning_modules.export.programs import Program
from lightning_modules.inference import Predictor, load_model
from lightning_modules.inference.loading import build_estimator
from lightning_modules.networks.stock_models import known_networks
from tests.lightning_modules.inference.runs import photo, shaken
from tests.lightning_modules.networks.test_other_family import TinyFlow

pytestmark = pytest.mark.filterwarnings("ignore")

RUNS = {
    "adapters": {"lora": {"rank": 2}},
    "residual": {"input_mode": "residual", "timestep": 499.0},
    "image": {"input_mode": "image", "checkpointing": True},
}


def make_run(folder, **network_options):
    """Write a run of that family whose weights are not those that it began with; return its folder."""
    network = {"class_path": f"{TinyFlow.__module__}.TinyFlow", "init_args": network_options}
    model = {"network": network, "task": {"class_path": "lightning_modules.Depth"}}
    model = {"class_path": "lightning_modules.SingleStepEstimator", "init_args": model}
    estimator = build_estimator(model)
    trained = {name for name, weight in estimator.named_parameters() if weight.requires_grad}
    weights = {name: weight for name, weight in estimator.state_dict().items() if name in trained}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": shaken(weights, 1), "global_step": 3}, folder / "checkpoints/last.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": "flow", "model": model}))
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_what_is_traced_gives_what_predict_gives(tmp_path, name):
    run = make_run(tmp_path / "run", **RUNS[name])
    program, image = Program(load_model(run).estimator, torch.float32), photo(23, 37)
    found = program(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0, 0].detach().numpy()
    predictor = Predictor.load(run, processing_res=0)
    assert np.abs(found - predictor(image)).max() < 1e-5
    predictor.estimator.network = TinyFlow(**{**RUNS[name], "lora": None}).eval()
    assert np.abs(found - predictor(image)).max() > 2e-3  # what was trained is in the program


def test_a_program_predicts_as_the_task_does_and_not_only_as_its_modality():
    estimator = SingleStepEstimator(TinyFlow(), Normals(clip_decoded=True)).eval()
    with torch.no_grad():
        estimator.network.vae.decoder.conv_out.bias += torch.tensor([3.0, -0.4, 0.9])  # x is beyond what is clipped
    image = torch.from_numpy(photo(24, 40)).permute(2, 0, 1)[None] / 255
    expected = estimator(2 * image - 1)
    assert torch.allclose(Program(estimator, torch.float32)(image), expected, atol=1e-5)
    estimator.task = Normals()
    assert not torch.allclose(estimator(2 * image - 1), expected, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_torch_program_gives_what_predict_gives_at_other_sizes(tmp_path, name):
    run = make_run(tmp_path / "run", **RUNS[name])
    train.main(["export", "--ckpt_path", str(run), "--format", "torch", "--output", str(tmp_path / "out")])
    program = torch.export.load(tmp_path / "out/model.pt2").module()
    predictor = Predictor.load(run, processing_res=0)
    for height, width in ((23, 40), (57, 34)):
        image = photo(height, width)
        found = program(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0, 0].numpy()
        assert np.abs(found - predictor(image)).max() < 1e-4
    record = json.loads((tmp_path / "out/onestep.json").read_text())
    assert record["size_multiple"] == 8 and "prompt_tokens" not in record
    assert "The network has no base" in (tmp_path / "out/README.md").read_text()


@pytest.mark.slow
def test_an_onnx_graph_gives_what_predict_gives_at_other_sizes(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    run = make_run(tmp_path / "run", **RUNS["adapters"])
    export_model(load_model(run), ExportOptions(tmp_path / "out", "onnx"))
    session = runtime.InferenceSession(tmp_path / "out/model.onnx", providers=["CPUExecutionProvider"])
    image = photo(56, 32)
    found = session.run(None, {"image": image.transpose(2, 0, 1)[None] / np.float32(255)})[0][0, 0]
    assert np.abs(found - Predictor.load(run, processing_res=0)(image)).max() < 1e-4


def test_a_family_without_a_stock_pipeline_brings_its_own_along(tmp_path):
    model = load_model(make_run(tmp_path / "run", **RUNS["adapters"]))
    assert export_model(model, ExportOptions(tmp_path / "out")).agreement.maximum < 1e-5
    assert "TinyFlow" not in (tmp_path / "out/model_index.json").read_text()


def test_models_that_diffusers_does_not_know_and_values_that_no_file_holds_are_refused_in_one_line(tmp_path):
    model = load_model(make_run(tmp_path / "run"))
    network = model.estimator.network
    scale, network.codec._scale = network.codec._scale, torch.ones(())
    with pytest.raises(InputError, match="cannot be written into a folder for diffusers: _scale is a Tensor"):
        export_model(model, ExportOptions(tmp_path / "out"))
    network.codec._scale = scale
    network.vae.__class__ = type("Autoencoder", (type(network.vae),), {})
    with pytest.raises(InputError, match="it has a model Autoencoder, which diffusers does not know"):
        export_model(model, ExportOptions(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_base_for_a_network_that_has_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="the base elsewhere has no use"):
        load_model(make_run(tmp_path / "run"), base="elsewhere")


def test_families_are_known_by_being_there_or_by_being_defined():
    known = {family.__name__ for family in known_networks()}
    assert {"StableDiffusion", "TinyFlow"} <= known
