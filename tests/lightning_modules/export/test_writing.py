"""Exports predict what their checkpoints do, in the tools that people have."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from datamodules import Benchmarks
from geometry.errors import InputError
from lightning_modules.export import ExportOptions, export_model
from lightning_modules.export.writing import _run_program
from lightning_modules.inference import Predictor, load_model
from lightning_modules.networks.stable_diffusion import folding
from tests.helpers.benchmark_archives import write_normals
from tests.lightning_modules.inference.runs import make_run, photo
from tests.lightning_modules.test_trained_on import mark

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[3]
SEEDS = (0, 1, 2)
RESOLUTION = 48
RUNS = {
    "depth": {},
    "depth-4-channels": {"noise": "none", "prediction_type": "sample", "clip_sample": True, "clip_sample_range": 0.5},
    "depth-padded-prompt": {
        "in_channels": 8,
        "prediction_type": "epsilon",
        "network_options": {"prompt_length": "max_length"},
    },
    "depth-gaussian": {"noise": "gaussian"},
    "normals": {"task": "Normals", "ema": True},
    "normals-4-channels": {"task": "Normals", "noise": "none", "task_options": {"frame": "dsine"}, "vae_factor": 2},
    "normals-gaussian": {"task": "Normals", "noise": "gaussian", "in_channels": 8},
    "depth-trained-adapters-and-decoder": {
        "network_options": {"lora": {"rank": 2}, "train_decoder": True, "vae_precision": "bfloat16"},
        "ema": True,
    },
    "depth-denoising": {"sampling": {"num_steps": 4, "ensemble_size": 3}},
    "normals-denoising": {
        "task": "Normals",
        "sampling": {"num_steps": 2, "spacing": "leading", "end": "scheduler"},
        "in_channels": 8,
        "prediction_type": "epsilon",
    },
}
STEPS = {"depth-denoising": 4, "normals-denoising": 2}
PROGRAMS = [name for name in RUNS if not name.endswith(("gaussian", "denoising"))]


def first_is_default(first, names):
    """Return parameters of which all but one are slow: tracing takes long."""
    return [first, *(pytest.param(name, marks=pytest.mark.slow) for name in names if name != first)]


def known_run(folder, name):
    """A run that says what it was trained on, from a base that states its licence."""
    run = make_run(folder / "run", **RUNS[name])
    (folder / "run/base/README.md").write_text("---\nlicense: mit\n---\n")
    task = {"task": "Depth", "task_options": {}} | RUNS[name]
    if task["task"] == "Depth":
        return mark(run)
    frame = task["task_options"].get("frame", "opengl")
    return mark(run, modality="normals", frame=frame, value_range=(-1.0, 1.0))


STOCK = """
import sys, json, numpy as np, torch
from diffusers import DiffusionPipeline, MarigoldDepthPipeline, MarigoldNormalsPipeline
job = json.load(open(sys.argv[1]))
image = np.load(job["image"])
found = {}
for name, folder in job["folders"].items():
    pipeline = DiffusionPipeline.from_pretrained(folder)
    assert type(pipeline) is (MarigoldDepthPipeline if name.startswith("depth") else MarigoldNormalsPipeline)
    assert pipeline.default_denoising_steps == job["steps"].get(name, 1)
    assert pipeline.default_processing_resolution == 768
    for seed in job["seeds"]:
        generator = torch.Generator().manual_seed(seed)
        out = pipeline(image / np.float32(255), processing_resolution=job["resolution"], generator=generator)
        found[f"{name}/{seed}"] = out.prediction[0]
np.savez(job["result"], **found)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return {name: make_run(tmp_path_factory.mktemp(name), **options) for name, options in RUNS.items()}


@pytest.fixture(scope="module")
def exports(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    for name, run in runs.items():
        export_model(load_model(run), ExportOptions(folder / name))
    return folder


@pytest.fixture(scope="module")
def stock(exports, tmp_path_factory):
    """Predictions of stock diffusers, in a process that knows nothing of this project and has no network."""
    folder = tmp_path_factory.mktemp("stock")
    np.save(folder / "image.npy", photo())
    job = {"image": str(folder / "image.npy"), "folders": {name: str(exports / name) for name in RUNS}}
    job |= {"seeds": SEEDS, "steps": STEPS, "resolution": RESOLUTION, "result": str(folder / "result.npz")}
    (folder / "job.json").write_text(json.dumps(job))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "PYTHONPATH": ""}
    command = [sys.executable, "-c", STOCK, str(folder / "job.json")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(folder / "result.npz")


class TestDiffusers:
    @pytest.mark.parametrize("name", RUNS)
    def test_stock_diffusers_gives_what_predict_gives_for_every_seed(self, runs, stock, name):
        predictor = Predictor.load(runs[name], processing_res=RESOLUTION)
        if name in STEPS:  # an ensemble is an argument of the pipeline's call
            predictor.estimator.sampling = replace(predictor.estimator.sampling, ensemble_size=1)
        for predictor.seed in SEEDS:
            expected = predictor(photo())
            found = stock[f"{name}/{predictor.seed}"].reshape(expected.shape)
            assert np.abs(found - expected).max() < 1e-4
            assert found.std() > 0.01

    @pytest.mark.parametrize("name", [name for name in RUNS if name != "depth-denoising"])
    def test_an_export_can_be_predicted_with_as_its_checkpoint(self, runs, exports, name):
        first, second = (
            Predictor.load(source, processing_res=48, seed=3)(photo()) for source in (runs[name], exports / name)
        )
        assert np.abs(first - second).max() < 1e-4

    def test_an_export_is_a_base_to_train_from(self, exports):
        from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
        from tests.helpers.tiny import make_batch

        estimator = SingleStepEstimator(StableDiffusion(str(exports / "depth")), Depth())
        before = Predictor.load(exports / "depth", processing_res=0)(photo(32, 32))
        assert np.abs(Predictor(estimator, processing_res=0)(photo(32, 32)) - before).max() < 1e-6
        estimator.train()
        loss, _ = estimator.training_loss(make_batch(), [0, 1])
        loss.backward()
        assert all(bool(weight.grad.isfinite().all()) for weight in estimator.network.unet.parameters())

    def test_an_export_scores_in_a_benchmark_what_its_checkpoint_does(self, runs, exports, tmp_path, monkeypatch):
        write_normals(tmp_path / "data", "scannet", num_samples=2)
        monkeypatch.chdir(tmp_path)
        data = Benchmarks(str(tmp_path / "data"), ["scannet"], modalities=["normals"], num_workers=0)
        data.setup("test")
        predictor = Predictor.load(runs["normals"], processing_res=0)
        for batch in data.test_dataloader()[0]:
            (tmp_path / "saved/scannet").mkdir(parents=True, exist_ok=True)
            prediction = predictor((batch.image[0] + 1) / 2)
            np.save(tmp_path / f"saved/scannet/{batch.key[0]}.npy", np.moveaxis(prediction, -1, 0))
        by_base = [
            f"--model.init_args.network.init_args.base={exports / 'normals'}",
            "--model.init_args.task.init_args.frame=opengl",
        ]
        saved = ["--model=lightning_modules.SavedPredictions", f"--model.folder={tmp_path / 'saved'}"]
        scores = []
        for options in (
            [f"--config={ROOT}/configs/benchmark_normals.yaml", *by_base],
            [*saved, "--model.task=Normals"],
        ):
            benchmark = [
                "--data=datamodules.Benchmarks",
                "--data.root=data",
                "--data.num_workers=0",
            ]
            out = tmp_path / f"out{len(scores)}"
            train.main(["test", *options, *benchmark, "--trainer.accelerator=cpu", f"--evaluation.output={out}"])
            scores.append(json.loads((out / "results.json").read_text())["data_sets"]["scannet"]["scores"])
        assert scores[0] == pytest.approx(scores[1], abs=1e-2) and scores[0]["mean_angle_deg"] > 1

    def test_an_export_of_an_ensemble_makes_one_prediction_and_says_how_to_have_more(self, runs, exports):
        card = (exports / "depth-denoising/README.md").read_text()
        assert "4 steps" in card and "`ensemble_size=3`" in card and "depends on the seed" in card
        single = Predictor.load(exports / "depth-denoising", processing_res=48)
        ensemble = Predictor.load(runs["depth-denoising"], processing_res=48)
        difference = np.abs(single(photo()) - ensemble(photo())).max()
        ensemble.estimator.sampling = replace(ensemble.estimator.sampling, ensemble_size=1)
        assert np.abs(single(photo()) - ensemble(photo())).max() < 1e-4 < difference

    def test_the_card_says_what_it_is_and_names_no_folder_of_this_machine(self, runs, exports):
        card = (exports / "normals/README.md").read_text()
        for part in (
            "surface normals",
            "largest difference",
            "| optimiser steps | 7 |",
            "moving average",
            "DiffusionPipeline",
        ):
            assert part in card
        for file in exports.rglob("*"):
            if file.suffix in (".json", ".md"):
                assert str(exports.parent) not in file.read_text(), file
        assert not list(exports.rglob("*.bin")) and not list(exports.rglob("*.pkl"))

    @pytest.mark.parametrize("dtype, variant", [("float16", "fp16"), ("bfloat16", "bf16")])
    def test_a_half_precision_variant_lies_beside_the_full_weights(self, runs, tmp_path, dtype, variant):
        record = export_model(load_model(runs["depth"]), ExportOptions(tmp_path / "out", dtype=dtype))
        names = {file.name for file in (tmp_path / "out/unet").iterdir()}
        assert {"diffusion_pytorch_model.safetensors", f"diffusion_pytorch_model.{variant}.safetensors"} <= names
        card = (tmp_path / "out/README.md").read_text()
        assert f'variant="{variant}"' in card and f"{record.variant_agreement.maximum:.2g}" in card
        assert record.agreement.maximum < 1e-4 < record.variant_agreement.maximum < 0.05


def made_by_card(folder, photo):
    """What the code in an export's card makes of a photo, as it stands, far from this project."""
    Image.fromarray(photo).save(folder / "photo.jpg", "PNG")
    (code,) = re.findall("```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert 9 <= len([line for line in code.splitlines() if line]) <= 13 and "lightning_modules" not in code
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return np.moveaxis(np.load(next(folder.glob("*.npy"))), 0, -1).squeeze()


class TestPrograms:
    """Sizes and batches of these checks are none that the programs were traced with, and no multiples of anything."""

    @pytest.mark.parametrize("name", first_is_default("depth-4-channels", PROGRAMS))
    def test_a_torch_program_gives_what_predict_gives_at_other_sizes(self, tmp_path, name):
        run = known_run(tmp_path, name)
        export_model(load_model(run), ExportOptions(tmp_path / "out", "torch"))
        program = torch.export.load(tmp_path / "out/model.pt2").module()
        # With torch 2.9, the weights of a program that was loaded want gradients.
        self.check(lambda images: program(torch.from_numpy(images)).detach().numpy(), run)
        texts = {"onestep.json": ""}
        torch.export.load(tmp_path / "out/model.pt2", extra_files=texts)
        facts = json.loads(texts["onestep.json"])
        self.check_facts(facts, name)
        image = torch.from_numpy(photo(int(facts["smallest_side"]) - 1, 40)).permute(2, 0, 1)[None] / 255
        with pytest.raises(Exception, match=r"[Gg]uard|constraint|>="):
            program(image)
        difference = np.abs(made_by_card(tmp_path / "out", photo(67, 97)) - Predictor.load(run)(photo(67, 97)))
        assert np.quantile(difference, 0.999) < 1e-4 and difference.max() < 1e-3

    @pytest.mark.parametrize("name", first_is_default("normals", PROGRAMS))
    def test_an_onnx_graph_gives_what_predict_gives_at_other_sizes(self, tmp_path, name):
        onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
        run = known_run(tmp_path, name)
        export_model(load_model(run), ExportOptions(tmp_path / "out", "onnx"))
        assert onnx.load(tmp_path / "out/model.onnx").opset_import[0].version == 20
        session = runtime.InferenceSession(tmp_path / "out/model.onnx", providers=["CPUExecutionProvider"])
        self.check(lambda images: session.run(None, {"image": images})[0], run)
        assert "Opset 20" in (tmp_path / "out/README.md").read_text()
        for value in (session.get_inputs()[0], session.get_outputs()[0]):
            assert value.shape == ["batch", 3 if value.name == "image" else value.shape[1], "height", "width"]
        self.check_facts(session.get_modelmeta().custom_metadata_map, name)
        difference = np.abs(made_by_card(tmp_path / "out", photo(67, 97)) - Predictor.load(run)(photo(67, 97)))
        assert np.quantile(difference, 0.999) < 1e-4 and difference.max() < 1e-3

    @pytest.mark.slow
    def test_half_precision_programs_agree_but_for_rounding(self, runs, tmp_path):
        pytest.importorskip("onnxruntime")
        for form, dtype in (("onnx", "float16"), ("torch", "float16"), ("torch", "bfloat16")):
            out = tmp_path / f"{form}-{dtype}"
            record = export_model(load_model(runs["depth"]), ExportOptions(out, form, dtype))
            assert 1e-6 < record.agreement.maximum < 0.1, (form, dtype)

    @staticmethod
    def check(program, run):
        predictor = Predictor.load(run, processing_res=0)
        for height, width in ((23, 40), (66, 97), (56, 32)):
            images = [photo(height, width, seed) for seed in range(2)]
            found = program(np.stack(images).transpose(0, 3, 1, 2) / np.float32(255))
            for expected, prediction in zip(predictor.predict(images), found, strict=True):
                difference = np.abs(np.moveaxis(prediction, 0, -1).squeeze() - expected)
                # Of an almost zero vector the direction is rounding: single values may differ more.
                assert np.quantile(difference, 0.999) < 1e-4 and difference.max() < 1e-3

    @staticmethod
    def check_facts(facts, name):
        is_depth = name.startswith("depth")
        assert facts["modality"] == ("depth" if is_depth else "normals") and facts["licence"] == "mit"
        assert facts.get("frame") == (None if is_depth else "opengl")
        assert facts["range"] == ("0 to 1" if is_depth else "-1 to 1")
        assert (facts["processing_res"], facts["trained_at"]) == ("96", "64x96 and 64x224 pixels")
        assert int(facts["size_multiple"]) == RUNS[name].get("vae_factor", 4)

    @pytest.mark.slow
    def test_a_program_of_a_deep_network_is_checked_on_images_that_are_large_enough_for_it(self, tmp_path):
        run = make_run(tmp_path / "run", unet_levels=4)  # halves a side of 32 pixels down to 1, as the toy base does
        export_model(load_model(run), ExportOptions(tmp_path / "out", "torch"))
        texts = {"onestep.json": ""}
        torch.export.load(tmp_path / "out/model.pt2", extra_files=texts)
        assert json.loads(texts["onestep.json"])["smallest_side"] == "33"

    def test_a_diffusion_estimator_is_refused(self, runs, tmp_path):
        with pytest.raises(InputError, match=r"several steps from noise.*--format diffusers"):
            export_model(load_model(runs["depth-denoising"]), ExportOptions(tmp_path / "out", "torch"))

    def test_a_network_that_needs_noise_is_refused(self, runs, tmp_path):
        with pytest.raises(InputError, match="gives another prediction for every noise"):
            export_model(load_model(runs["depth-gaussian"]), ExportOptions(tmp_path / "out", "torch"))


class TestCare:
    def test_a_wrong_export_is_an_error_and_leaves_nothing_behind(self, runs, tmp_path, monkeypatch):
        monkeypatch.setattr(folding, "_ignore_noise", lambda unet, channels: None)
        with pytest.raises(InputError, match="the export is wrong: its predictions differ"):
            export_model(load_model(runs["depth"]), ExportOptions(tmp_path / "out"))
        assert not list(tmp_path.iterdir())

    def test_a_program_that_took_a_size_for_a_constant_is_refused_in_one_line(self, tmp_path):
        program = torch.export.export(torch.nn.Conv2d(3, 1, 1), (torch.rand(2, 3, 16, 16),))
        torch.export.save(program, tmp_path / "model.pt2")
        assert _run_program(tmp_path, "torch", np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 1, 16, 16)
        with pytest.raises(InputError, match="the export is wrong: it does not run on 1 images of 24x16 pixels"):
            _run_program(tmp_path, "torch", np.zeros((1, 24, 16, 3), np.uint8))

    def test_an_existing_folder_is_kept_unless_told_otherwise(self, runs, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/thesis.txt").write_text("years of work")
        model = load_model(runs["depth"])
        with pytest.raises(InputError, match="exists and is not empty"):
            export_model(model, ExportOptions(tmp_path / "out"))
        with pytest.raises(InputError, match="holds no export, and --overwrite replaces nothing else"):
            export_model(model, ExportOptions(tmp_path / "out", overwrite=True))
        assert (tmp_path / "out/thesis.txt").read_text() == "years of work"
        (tmp_path / "out/thesis.txt").rename(tmp_path / "out/onestep.json")  # now it passes for a former export
        export_model(model, ExportOptions(tmp_path / "out", overwrite=True))
        assert (tmp_path / "out/model_index.json").is_file()
        assert [file.name for file in tmp_path.iterdir()] == ["out"]

    def test_steps_that_diffusers_takes_otherwise_are_refused(self, tmp_path):
        for number, sampling, message in (
            (1, {"num_steps": 7}, "diffusers does not take 7 trailing steps"),
            (2, {"num_steps": 61}, "diffusers does not take 61 trailing steps"),
            (3, {"num_steps": 1, "noise": "zeros"}, "sampling from noise: zeros cannot be exported"),
        ):
            run = make_run(tmp_path / str(number), sampling=sampling)
            with pytest.raises(InputError, match=message):
                export_model(load_model(run), ExportOptions(tmp_path / "out"))
            assert not (tmp_path / "out").exists()

    def test_pyramid_noise_which_diffusers_cannot_draw_is_refused(self, tmp_path):
        run = make_run(tmp_path, noise="pyramid")
        with pytest.raises(InputError, match="pyramid cannot be exported"):
            export_model(load_model(run), ExportOptions(tmp_path / "out"))
