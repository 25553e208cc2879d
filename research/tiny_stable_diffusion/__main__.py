"""Make ``checkpoints/tiny-stable-diffusion``: ``python -m research.tiny_stable_diffusion --work DIR``.

The stages keep their results in the work folder and are skipped when these are there:

1. scenes: ray-cast rooms, halls and streets (``synthetic_scenes``), held-out ones from other seeds;
2. vae: an autoencoder of factor 4 on their images and on their depth and normals as images, because the decoder must
   be able to say what fine-tuning teaches the UNet;
3. unet: unconditional image denoising in the latent space (v-prediction, SD 2's noise schedule, empty prompt), so that
   fine-tuning starts from a real generative prior;
4. decoder: the decoder alone, further, with more weight on depth and normals.

Runs on a GPU where there is one. checkpoints/README.md records how the committed weights were made.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from research.tiny_stable_diffusion.autoencoder import measure_autoencoder, refine_decoder, train_autoencoder
from research.tiny_stable_diffusion.denoiser import SCHEDULE, train_denoiser
from research.tiny_stable_diffusion.scenes import render_scenes
from research.tiny_stable_diffusion.text_encoder import save_text_encoder

_PARTS = {
    "vae": ["diffusers", "AutoencoderKL"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
}


def main() -> None:
    """Run the stages that are not in the work folder yet, then write the diffusers folder."""
    options = _parser().parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    device, started = options.device, time.time()
    counts = {"rooms": options.rooms, "halls": options.halls, "streets": options.streets}
    train = render_scenes(options.work, "train", counts)
    held_out = render_scenes(options.work, "held-out", {"rooms": 64, "halls": 64, "streets": 32})

    def stage(name: str, kind: Any, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - diffusers' models share no type
        if not (options.work / name / "config.json").exists():
            make().save_pretrained(options.work / name)
        return kind.from_pretrained(options.work / name).to(device)

    vae = stage("vae", AutoencoderKL, lambda: train_autoencoder(train, held_out, options.vae_steps, device))
    prompt = save_text_encoder(options.out).to(device)
    unet = stage("unet", UNet2DConditionModel, lambda: train_denoiser(vae, train, prompt, options.unet_steps, device))
    vae = stage("decoder", AutoencoderKL, lambda: refine_decoder(vae, train, held_out, options.decoder_steps, device))
    # Half precision on disk keeps the folder small; it is read back as float32.
    vae.to("cpu", torch.float16).save_pretrained(options.out / "vae")
    unet.to("cpu", torch.float16).save_pretrained(options.out / "unet")
    DDIMScheduler(**SCHEDULE).save_pretrained(options.out / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline", **_PARTS, "requires_safety_checker": False}
    (options.out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    figures = measure_autoencoder(AutoencoderKL.from_pretrained(options.out / "vae"), held_out)
    print(json.dumps({"minutes": round((time.time() - started) / 60, 1), **figures}, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m research.tiny_stable_diffusion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out = Path(__file__).parents[2] / "checkpoints" / "tiny-stable-diffusion"
    parser.add_argument("--out", type=Path, default=out, help="folder of the model (default: that of the repository)")
    parser.add_argument("--work", type=Path, required=True, help="folder for rendered scenes and the stages' results")
    for name, default, text in (
        ("rooms", 1000, "training rooms"),
        ("halls", 1500, "training halls"),
        ("streets", 400, "training streets"),
        ("vae-steps", 3000, "optimiser steps of the autoencoder"),
        ("unet-steps", 8000, "optimiser steps of the UNet"),
        ("decoder-steps", 2000, "optimiser steps of the decoder alone"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"number of {text} (default: {default})")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    return parser


if __name__ == "__main__":
    main()
