"""What ``python train.py test`` can evaluate: training checkpoints, exports, and published checkpoints with options."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    MarigoldDepthPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

import train
from lightning_modules.networks.noise import draw_noise, seed_from
from tests.evaluations import results_in, run
from tests.helpers.benchmark_archives import write_depth_archive, write_normals
from tests.helpers.planes import make_dataset
from tests.helpers.tiny import build_base

ROOT = Path(__file__).parents[1]
# That of Lotus scores a folder of another kind: tests/lightning_modules/test_several_tasks.py.
CONFIGS = sorted({*(ROOT / "configs").glob("benchmark_*.yaml")} - {ROOT / "configs/benchmark_lotus_depth.yaml"})
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def marigold(tmp_path_factory):
    """A published diffusion estimator in miniature: saved by diffusers, 8 channels, a scheduler of leading steps."""
    parts = build_base(tmp_path_factory.mktemp("parts"), in_channels=8)
    folder = tmp_path_factory.mktemp("marigold")
    options = {name: _load(parts, name) for name in ("unet", "vae", "scheduler", "text_encoder", "tokenizer")}
    MarigoldDepthPipeline(**options).save_pretrained(folder)
    return folder


def _load(parts, name):
    classes = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "scheduler": DDIMScheduler}
    classes |= {"text_encoder": CLIPTextModel, "tokenizer": CLIPTokenizer}
    return classes[name].from_pretrained(parts, subfolder=name)


def evaluate(config, base, folder, *options):
    """Run a shipped configuration on the archives in folder/data; return its results."""
    run(
        *("--config", config, f"--data.init_args.root={folder / 'data'}", "--data.init_args.num_workers=0"),
        *(f"--model.init_args.network.init_args.base={base}", "--trainer.accelerator=cpu"),
        *(f"--trainer.default_root_dir={folder / 'runs'}", "--evaluation.num_images=0"),
        *options,
    )
    return results_in(newest_test(folder / f"runs/{config.stem}"))


def newest_test(run_folder):
    """Return the folder of the newest test of a run: other settings write to another one."""
    return max(run_folder.glob("test*"), key=lambda folder: (folder / "results.json").stat().st_mtime_ns)


def test_a_training_checkpoint_and_its_export_are_evaluated_with_the_recipe_that_made_it(base, tmp_path):
    write_depth_archive(tmp_path / "data", "scannet", num_samples=1)
    make_dataset(tmp_path / "shards/hypersim", "hypersim", {"train": [2], "val": [1]})
    recipe = [
        f"--config={ROOT / 'configs/depth_stable_diffusion.yaml'}",
        f"--model.init_args.network.init_args.base={base}",
        f"--trainer.default_root_dir={tmp_path / 'runs'}",
        *("--trainer.accelerator=cpu", "--trainer.precision=32-true"),
    ]
    shards = f"--data.init_args.datasets=[{{path: {tmp_path / 'shards/hypersim'}}}]"
    few = ["--trainer.max_steps=1", "--trainer.accumulate_grad_batches=1", "--data.init_args.num_workers=0"]
    train.main(["fit", *recipe, shards, *few, "--model.init_args.optimizer.init_args.lr=0.5"])
    benchmarks = ["--data=datamodules.Benchmarks", f"--data.root={tmp_path / 'data'}", "--data.num_workers=0"]
    run(*recipe, *benchmarks, "--ckpt_path=last")
    trained = results_in(tmp_path / "runs/depth_stable_diffusion/test")
    assert trained["checkpoint"].endswith("version_0/checkpoints/last.ckpt")
    assert (trained["step"], trained["weights"], trained["precision"]) == (1, "of the last step", "32-true")
    exported = tmp_path / "exported"
    train.main(["export", "--ckpt_path", str(tmp_path / "runs/depth_stable_diffusion"), "--output", str(exported)])
    run(*recipe, *benchmarks, f"--model.init_args.network.init_args.base={exported}", "--name=exported")
    scores = results_in(tmp_path / "runs/exported/test")["data_sets"]["scannet"]["scores"]
    assert scores == pytest.approx(trained["data_sets"]["scannet"]["scores"], rel=1e-3)

    run(*recipe, *benchmarks)
    untrained = results_in(tmp_path / "runs/depth_stable_diffusion/test_2")
    assert results_in(tmp_path / "runs/depth_stable_diffusion/test") == trained, "a second test writes over nothing"
    assert (untrained["step"], untrained["weights"]) == (None, "as the model was built")
    assert trained["data_sets"]["scannet"]["scores"] != untrained["data_sets"]["scannet"]["scores"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_the_shipped_configurations_evaluate_a_published_checkpoint(marigold, tmp_path, config):
    assert f"onestep test --config configs/{config.name}" in config.read_text().splitlines()[0]
    is_depth = config.stem.endswith("depth")
    (write_depth_archive if is_depth else write_normals)(tmp_path / "data", "scannet", num_samples=1)
    results = evaluate(config, marigold, tmp_path)
    assert results["checkpoint"] is None
    assert results["data_sets"]["scannet"]["num_images"] == 1
    assert f"the weights are those of `{marigold}`" in (tmp_path / f"runs/{config.stem}/test/results.md").read_text()


@pytest.mark.parametrize(("num_steps", "spacing", "size"), [(1, "trailing", 1), (1, "leading", 1), (3, "leading", 3)])
def test_a_diffusion_estimator_predicts_what_its_own_pipeline_in_diffusers_does(
    marigold, tmp_path, num_steps, spacing, size
):
    members = write_depth_archive(tmp_path / "data", "scannet", num_samples=2)
    sampling = f"{{num_steps: {num_steps}, spacing: {spacing}, ensemble_size: {size}, end: scheduler}}"
    options = [f"--model.init_args.sampling={sampling}", "--evaluation.save_predictions=true"]
    evaluate(ROOT / "configs/benchmark_diffusion_depth.yaml", marigold, tmp_path, *options)

    pipeline = DiffusionPipeline.from_pretrained(marigold)
    assert isinstance(pipeline, MarigoldDepthPipeline)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing=spacing)
    pipeline.set_progress_bar_config(disable=True)
    saved = sorted((tmp_path / "runs/benchmark_diffusion_depth/test/predictions/scannet").glob("*.npy"))
    assert len(saved) == 2
    for file, name in zip(saved, sorted(name for name in members if name.endswith("jpg")), strict=True):
        image = cv2.imdecode(np.frombuffer(members[name], np.uint8), cv2.IMREAD_COLOR_RGB)
        seeds = [seed_from(file.stem), *(seed_from(seed_from(file.stem), "member", n) for n in range(1, size))]
        stock = pipeline(
            torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255,
            num_inference_steps=num_steps,
            ensemble_size=size,
            processing_resolution=0,
            latents=draw_noise("gaussian", torch.zeros(size, 4, image.shape[0] // 4, image.shape[1] // 4), seeds),
            output_type="pt",
        ).prediction
        assert stock.std() > 0.01
        assert np.abs(np.load(file) / 2 + 0.5 - stock[0].numpy()).max() < 1e-5


def test_the_noise_that_sampling_starts_from_is_an_option(marigold, tmp_path):
    write_depth_archive(tmp_path / "data", "scannet", num_samples=1)
    found = set()
    for noise in ("gaussian", "pyramid", "zeros"):
        results = evaluate(CONFIGS[1], marigold, tmp_path, f"--model.init_args.sampling.noise={noise}")
        found.add(results["data_sets"]["scannet"]["scores"]["abs_rel"])
    assert len(found) == 3


def test_a_checkpoint_of_which_only_the_half_precision_was_downloaded_is_evaluated(marigold, tmp_path):
    write_depth_archive(tmp_path / "data", "scannet", num_samples=1)
    DiffusionPipeline.from_pretrained(marigold, torch_dtype=torch.float16).save_pretrained(
        tmp_path / "half", variant="fp16"
    )
    assert not (tmp_path / "half/unet/diffusion_pytorch_model.safetensors").exists()
    half = evaluate(CONFIGS[0], tmp_path / "half", tmp_path)["data_sets"]["scannet"]["scores"]
    full = evaluate(CONFIGS[0], marigold, tmp_path)["data_sets"]["scannet"]["scores"]
    assert half == pytest.approx(full, rel=0.01) and half != full
