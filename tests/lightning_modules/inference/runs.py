"""Runs as training leaves them behind, without the training: a base, a checkpoint, a configuration."""

import numpy as np
import torch
import yaml
from diffusers import AutoencoderKL

import train
from lightning_modules.inference.loading import build_estimator
from tests.helpers.tiny import build_base


def make_run(
    folder,
    task="Depth",
    noise="zeros",
    ema=False,
    network_options=None,
    task_options=None,
    sampling=None,
    **base_options,
):
    """Write a run whose weights differ from its base's; return its folder. With sampling, it is a diffusion run."""
    base = build_base(folder / "base", **base_options)
    if task == "Normals":
        _face_viewer(base / "vae")
    network = {"base": str(base), "noise": noise} | (network_options or {})
    model = {
        "class_path": "lightning_modules.SingleStepEstimator",
        "init_args": {
            "network": {"class_path": "lightning_modules.StableDiffusion", "init_args": network},
            "task": {"class_path": f"lightning_modules.{task}", "init_args": task_options or {}},
        },
    }
    if sampling is not None:
        model["class_path"] = "lightning_modules.DiffusionEstimator"
        model["init_args"]["sampling"] = sampling
    run = folder / "runs" / "version_0"
    (run / "checkpoints").mkdir(parents=True)
    data = {"class_path": "tests.helpers.tiny.TinyData", "init_args": {"size": 16}}
    (run / "config.yaml").write_text(yaml.safe_dump({"name": "tiny", "model": model, "data": data}))
    names = {name for name, weight in build_estimator(model).named_parameters() if weight.requires_grad}
    weights = {n: t for n, t in build_estimator(model).state_dict().items() if n in names}
    checkpoint = {"state_dict": shaken(weights, 1), "global_step": 7}
    if ema:
        checkpoint["ema_state_dict"] = shaken(weights, 2)
    torch.save(checkpoint, run / "checkpoints/last.ckpt")
    return run


def _face_viewer(folder):
    """Let a VAE decode to long vectors that mostly face the viewer, as trained normals do.

    Of short ones, the direction is rounding. These reach beyond 1, where stock pipelines clip.
    """
    vae = AutoencoderKL.from_pretrained(folder)
    vae.decoder.conv_out.bias.data[2] += 1
    vae.save_pretrained(folder)


def shaken(weights, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: t + 0.05 * torch.randn(t.shape, generator=generator) for name, t in weights.items()}


def photo(height=45, width=61, seed=0):
    generator = np.random.default_rng(seed)
    smooth = np.linspace(0, 200, width)[None, :, None] * np.linspace(0.3, 1, height)[:, None, None]
    return (smooth + generator.integers(0, 55, (height, width, 3))).astype(np.uint8)


def predict(*words):
    """Run the command predict and return its exit status."""
    try:
        train.main(["predict", *map(str, words), "--processing_res", "32", "--quiet"])
    except SystemExit as ended:
        return ended.code
    return 0
