"""Make the toy transformers in ``checkpoints``: ``python -m research.tiny_transformers --work DIR``.

The stages keep their results in the work folder and are skipped when these are there:

1. scenes: as for ``research.tiny_stable_diffusion``, whose scenes are taken where the numbers are the same;
2. vae, decoder: the autoencoder of ``checkpoints/tiny-stable-diffusion``, widened to latents of 16 channels and
   trained on; then its decoder alone, with more weight on depth and normals;
3. one transformer per toy: flow matching on the images' latents.

Runs on a GPU where there is one. checkpoints/README.md records how the committed weights were made.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from lightning_modules.networks.conditioning import FILE_NAME, write_conditioning
from lightning_modules.networks.family import family_named
from research.tiny_stable_diffusion.autoencoder import measure_autoencoder, refine_decoder
from research.tiny_stable_diffusion.scenes import render_scenes
from research.tiny_transformers.autoencoder import train_widened
from research.tiny_transformers.denoiser import train_transformer
from research.tiny_transformers.toys import TOYS, conditioning

_CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


def main() -> None:
    """Run the stages that are not in the work folder yet, then write the diffusers folders."""
    options = _parser().parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    device = options.device
    counts = {"rooms": options.rooms, "halls": options.halls, "streets": options.streets}
    train = render_scenes(options.work, "train", counts)
    held_out = render_scenes(options.work, "held-out", {"rooms": 64, "halls": 64, "streets": 32})

    def stage(name: str, kind: Any, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - diffusers' models share no type
        if not (options.work / name / "config.json").exists():
            started = time.process_time()
            make().save_pretrained(options.work / name)
            print(f"{name}: {(time.process_time() - started) / 60:.1f} minutes of processor time", flush=True)
        return kind.from_pretrained(options.work / name).to(device)

    small = AutoencoderKL.from_pretrained(_CHECKPOINTS / "tiny-stable-diffusion/vae")
    vae = stage("vae-16", AutoencoderKL, lambda: train_widened(small, train, options.vae_steps, device))
    steps = options.decoder_steps
    final = stage("decoder-16", AutoencoderKL, lambda: refine_decoder(vae, train, None, steps, device))
    for name in options.toys:
        toy = TOYS[name]
        kind = getattr(diffusers, toy.index()["transformer"][1])
        model = stage(name, kind, lambda toy=toy: train_transformer(toy, vae, train, options.steps, device))
        _write(options.out / name, name, final, model)
    print(json.dumps(measure_autoencoder(final.to(torch.float16).float(), held_out), indent=2))


def _write(folder: Path, name: str, vae: Any, model: Any) -> None:  # noqa: ANN401 - as above
    """Write a toy's folder; half precision on disk keeps it small and is read back as float32."""
    toy = TOYS[name]
    folder.mkdir(parents=True, exist_ok=True)
    for part, each in (("vae", vae), ("transformer", model)):
        each.to("cpu", torch.float16).save_pretrained(folder / part)
        each.float()
    FlowMatchEulerDiscreteScheduler(**toy.scheduler).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(toy.index(), indent=2) + "\n")
    write_conditioning(conditioning(), family_named(toy.pipeline, name), name, folder / FILE_NAME)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m research.tiny_transformers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=_CHECKPOINTS, help="folder of the toys' folders")
    parser.add_argument("--work", type=Path, required=True, help="folder for rendered scenes and the stages' results")
    parser.add_argument("--toys", nargs="+", default=list(TOYS), choices=list(TOYS), help="which toys (default: both)")
    for name, default, text in (
        ("rooms", 300, "training rooms"),
        ("halls", 900, "training halls"),
        ("streets", 150, "training streets"),
        ("vae-steps", 1200, "optimiser steps of the autoencoder"),
        ("decoder-steps", 600, "optimiser steps of the decoder alone"),
        ("steps", 5000, "optimiser steps of each transformer"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"number of {text} (default: {default})")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    return parser


if __name__ == "__main__":
    main()
