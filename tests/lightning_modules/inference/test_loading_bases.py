"""Folders of other people's Marigolds: predicted as their pipelines predict, or refused, whichever way they come in."""

import json
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

import train
from geometry.errors import InputError
from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from lightning_modules.app import __main__ as app
from lightning_modules.diffusion import DiffusionEstimator
from lightning_modules.export.writing import ExportOptions, export_model
from lightning_modules.inference.loading import LoadedModel, load_model
from lightning_modules.networks.noise import draw_noise
from tests.helpers.tiny import build_base

DEPTH = {
    "_class_name": "MarigoldDepthPipeline",
    "_diffusers_version": "0.33.0",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "default_denoising_steps": 1,
    "default_processing_resolution": 0,
    "prediction_type": "depth",
    "scale_invariant": True,
    "shift_invariant": True,
}
NORMALS = {"_class_name": "MarigoldNormalsPipeline", "prediction_type": "normals", "use_full_z_range": True}


@pytest.fixture
def marigold(tmp_path):
    def write(scheduler=None, vae=None, spacing="trailing", **index):
        folder = build_base(tmp_path / "marigold", in_channels=8, timestep_spacing=spacing)
        content = {key: value for key, value in (DEPTH | index).items() if value != "absent"}
        (folder / "model_index.json").write_text(json.dumps(content))
        for file, changes in (("scheduler/scheduler_config.json", scheduler), ("vae/config.json", vae)):
            config = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps(config | (changes or {})))
        return folder

    return write


def refusal(folder):
    with pytest.raises(InputError) as refused:
        load_model(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(("spacing", "steps"), [("leading", 1), ("leading", 3), ("trailing", 4)])
def test_a_model_that_denoises_predicts_what_its_pipeline_does_from_the_same_noise(marigold, spacing, steps):
    folder = marigold(spacing=spacing, default_denoising_steps=steps)
    estimator = load_model(folder).estimator
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        noise = draw_noise("gaussian", estimator.network.encode(image * 2 - 1), [0])
        ours = estimator(image * 2 - 1, [0]) / 2 + 0.5
    pipeline = DiffusionPipeline.from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(image, latents=noise, output_type="pt").prediction
    assert isinstance(estimator, DiffusionEstimator)
    assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("steps", [1, "absent"])
def test_a_single_trailing_step_is_an_end_to_end_model_that_takes_zeros(marigold, steps):
    estimator = load_model(marigold(default_denoising_steps=steps)).estimator
    assert isinstance(estimator, SingleStepEstimator) and estimator.network.noise == "zeros"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scheduler": {"_class_name": "LCMScheduler"}}, "LCMScheduler"),
        ({"scheduler": {"_class_name": "LCMScheduler"}, "default_denoising_steps": 4}, "LCMScheduler"),
        ({"scheduler": {"_class_name": "DDPMScheduler"}}, "DDPMScheduler"),
        ({"scheduler": {"_class_name": "EulerDiscreteScheduler"}, "default_denoising_steps": 4}, "EulerDiscrete"),
        ({"vae": {"shift_factor": 0.1}}, "shift_factor"),
        ({"vae": {"latents_mean": [0.1] * 4, "latents_std": [1.0] * 4}}, "latents_mean"),
        ({"prediction_type": "disparity"}, "disparity"),
        ({**NORMALS, "use_full_z_range": False}, "use_full_z_range"),
        ({"_class_name": "MarigoldMattingPipeline"}, "predicts none of"),
        (
            {
                "_class_name": "MarigoldIntrinsicsPipeline",
                "target_properties": {"target_names": ["albedo", "material"]},
            },
            "target_properties",
        ),
        ({"_class_name": ["MarigoldDepthPipeline"]}, "predicts none of"),
        ({"default_denoising_steps": "absent", "spacing": "leading"}, "default_denoising_steps: None"),
        ({"default_denoising_steps": 0}, "default_denoising_steps: 0"),
        ({"default_denoising_steps": "four"}, "default_denoising_steps: 'four'"),
        ({"default_denoising_steps": 2, "spacing": "linspace"}, "linspace"),
    ],
)
def test_what_the_pipeline_would_do_otherwise_is_refused(marigold, changes, named):
    assert named in refusal(marigold(**changes))


def test_normals_of_the_full_range_are_read(marigold):
    assert load_model(marigold(**NORMALS)).estimator.task.modality.name == "normals"


def _spoil(folder: Path) -> None:
    file = folder / "unet/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"addition_embed_type": "text_time"}))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["fit", "test", "predict", "export", "page"])
def test_every_command_ends_with_one_line_before_data_are_read(marigold, tmp_path, capsys, way):
    folder = marigold()
    _spoil(folder)
    network = f"--model.init_args.network.init_args.base={folder}"
    words = {
        "fit": ["fit", "--config", "configs/depth_stable_diffusion.yaml", network, "--trainer.accelerator=cpu"],
        "test": ["test", "--config", "configs/benchmark_depth.yaml", network, f"--data.root={tmp_path}/none"],
        "predict": ["predict", f"{tmp_path}/none.png", "--model", str(folder), "--output", f"{tmp_path}/out"],
        "export": ["export", "--model", str(folder), "--output", f"{tmp_path}/out"],
        "page": ["--model", str(folder)],
    }[way]
    (tmp_path / "none.png").touch()
    with pytest.raises(SystemExit) as ended:
        sys.exit(app.main(words)) if way == "page" else train.main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "Traceback" not in error
    assert f"error: the base folder {folder} cannot be used: unet/config.json has addition_embed_type" in error
    assert not (tmp_path / "out").exists()


NORMALIZATIONS = [
    {"shift_factor": 0.5},
    {"latents_mean": [0.5, -1.0, 0.25, 2.0], "latents_std": [0.5, 2.0, 1.0, 3.0]},
]


# Both forms of export begin with the same folded parts: one case is enough for torch, whose tracing takes long.
@pytest.mark.parametrize(
    ("form", "has_layers", "normalization"),
    [*(("diffusers", *case) for case in product([True, False], NORMALIZATIONS)), ("torch", False, NORMALIZATIONS[1])],
)
def test_the_normalisation_of_latents_is_in_the_weights_of_an_export(tmp_path, form, has_layers, normalization):
    folder = build_base(tmp_path / "base")
    from diffusers import AutoencoderKL

    options = normalization | {"use_quant_conv": has_layers, "use_post_quant_conv": has_layers}
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae") | options)
    vae.save_pretrained(folder / "vae")
    estimator = SingleStepEstimator(StableDiffusion(str(folder)), Depth()).eval()
    image = torch.rand(1, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        expected = estimator(image)
        model = LoadedModel(estimator, source=str(folder), base=str(folder), config={})
        record = export_model(model, ExportOptions(tmp_path / "out", format=form))
        assert record.agreement.maximum < 1e-4
        assert torch.equal(estimator(image), expected), "the network itself stays as it is"
        if form == "diffusers":
            assert torch.allclose(load_model(tmp_path / "out").estimator(image), expected, atol=1e-4)
