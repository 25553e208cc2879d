"""Make ``checkpoints/tiny-stable-diffusion``: a toy Stable Diffusion for the demo, the tests and the miniature experiments.

    python checkpoints/train_tiny_stable_diffusion.py --work /tmp/tiny

Three stages, each kept in the work folder and skipped when it is already there:

1. ``scenes``: ray-cast rooms and streets (``datamodules.synthetic``), held-out ones from other seeds.
2. ``vae``: an autoencoder of factor 4 on their images and on their depth and normals as pictures, because the
   decoder must be able to say what fine-tuning teaches the UNet.
3. ``unet``: unconditional image denoising in the latent space (v-prediction, SD 2's noise schedule, empty prompt),
   so that fine-tuning starts from a real generative prior.

The text encoder is small, random and never trained: every use of the model is with the empty prompt.
Runs on a GPU where there is one. ``checkpoints/README.md`` records how the committed weights were made.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from datamodules.hypersim import tone_map
from datamodules.synthetic.render import Frame, render
from datamodules.synthetic.rooms import random_pose, random_room
from datamodules.synthetic.streets import WEATHER, random_drive, random_street
from geometry import align_scale_shift, camera_from_intrinsics, hypersim_nominal_intrinsics, pixel_rays

Array = np.ndarray
Scenes = dict[str, Array]

ROOM_SIZE = (192, 256)
STREET_SIZE = (64, 224)
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
HIDDEN_SIZE = 32


# Stage 1: scenes


def render_scenes(work: Path, split: str, rooms: int, streets: int) -> dict[str, Scenes]:
    """Rendered pictures by kind ("rooms", "streets"), from the work folder where they are already there."""
    counts, sets = {"rooms": rooms, "streets": streets}, {}
    for kind, count in counts.items():
        file = work / f"{split}-{kind}-{count}.npz"
        if not file.exists():
            jobs = [(kind, [0 if split == "train" else 1, number]) for number in range(count)]
            with ProcessPoolExecutor(2) as pool:
                pictures = list(tqdm(pool.map(_render_one, jobs, chunksize=4), f"{split} {kind}", count, smoothing=0))
            np.savez(file, **{key: np.stack([picture[key] for picture in pictures]) for key in pictures[0]})
        with np.load(file) as arrays:
            sets[kind] = dict(arrays)
    return sets


def _render_one(job: tuple[str, list[int]]) -> Scenes:
    kind, seed = job
    rng = np.random.default_rng([*seed, kind == "streets"])
    if kind == "rooms":
        scene, size = random_room(rng)
        frame = render(scene, random_pose(rng, scene, size), _rays(hypersim_nominal_intrinsics(*ROOM_SIZE), ROOM_SIZE))
        return _as_pictures(frame, tone_map(frame.color, frame.entity_id >= 0), far_plane_m=65)
    weather = WEATHER[str(rng.choice(list(WEATHER)))]
    focal_length_px = 725.0087 * STREET_SIZE[1] / 1216
    center = STREET_SIZE[1] / 2, STREET_SIZE[0] / 2
    intrinsics = torch.tensor([[focal_length_px, 0, center[0]], [0, focal_length_px, center[1]], [0, 0, 1]])
    rays = _rays(intrinsics, STREET_SIZE)
    frame = render(random_street(rng, weather), random_drive(rng, weather), rays, antialias=2)
    return _as_pictures(frame, np.clip(frame.color, 0, 1) ** (1 / 2.2), far_plane_m=80)


def _rays(intrinsics: Tensor, size: tuple[int, int]) -> Array:
    return pixel_rays(camera_from_intrinsics(intrinsics), *size).numpy().astype(np.float32)


def _as_pictures(frame: Frame, image: Array, far_plane_m: float) -> Scenes:
    valid = (frame.entity_id >= 0) & (frame.depth < far_plane_m)
    low, high = np.quantile(frame.depth[valid], [0.02, 0.98])
    relative = np.where(valid, (frame.depth - low) / max(high - low, 1e-3), 1).clip(0, 1) * 2 - 1
    return {
        "image": np.round(image * 255).astype(np.uint8),
        "depth": np.where(valid, frame.depth, 0).astype(np.float32),
        "relative_depth": relative.astype(np.float16),
        "normals": np.where(valid[..., None], frame.normals, 0).astype(np.float16),
    }


# Stage 2: autoencoder


def train_vae(train: dict[str, Scenes], held_out: dict[str, Scenes], steps: int, device: torch.device) -> AutoencoderKL:
    """An autoencoder for images, depth pictures and normals pictures."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=ROOM_SIZE[0] // 2,
    ).to(device)
    batches = _crops(train, np.random.default_rng(0), batch_size=8, crop=64)
    average = _Average(vae, 0.998)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.05)
    for step in tqdm(range(steps), "autoencoder", mininterval=20):
        pictures = next(batches).to(device)
        posterior = vae.encode(pictures).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        loss = _picture_loss(decoded, pictures) + 1e-5 * posterior.kl().mean() / posterior.mean[0].numel()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update()
        if step % 500 == 499:
            with average.applied():
                print(step + 1, round(loss.item(), 4), measure_vae(vae, held_out), flush=True)
    average.apply()
    latents = torch.cat([vae.encode(next(batches).to(device)).latent_dist.mean.detach().flatten() for _ in range(16)])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae


def _picture_loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    """Absolute and squared error of the values, and absolute error of their differences, which keeps edges sharp."""
    loss = functional.l1_loss(decoded, pictures) + 2 * functional.mse_loss(decoded, pictures)
    for axis in (2, 3):
        loss = loss + 0.5 * functional.l1_loss(decoded.diff(dim=axis), pictures.diff(dim=axis))
    return loss


def _crops(sets: dict[str, Scenes], rng: np.random.Generator, batch_size: int, crop: int) -> Iterator[Tensor]:
    """Endless batches (B,3,crop,crop) in [-1, 1] of random kind, scale, contrast and orientation."""
    while True:
        yield torch.stack([_crop(sets, rng, crop) for _ in range(batch_size)])


def _crop(sets: dict[str, Scenes], rng: np.random.Generator, crop: int) -> Tensor:
    kind = "rooms" if rng.random() < 0.8 else "streets"
    content = str(rng.choice(["image", "relative_depth", "normals"], p=[0.35, 0.25, 0.4]))
    pictures = sets[kind][content]
    values = pictures[rng.integers(len(pictures))].astype(np.float32)
    if kind == "rooms" and rng.random() < 0.65:
        values = _halve(values, content)
    top, left = (rng.integers(0, length - crop + 1) for length in values.shape[:2])
    values = values[top : top + crop, left : left + crop]
    values = values[:, ::-1] if rng.random() < 0.5 else values
    if content == "image":
        values = values / 127.5 - 1
    elif content == "relative_depth":
        values = np.repeat(values[..., None], 3, axis=2) * (rng.choice([-1, 1]) * rng.uniform(0.5, 1))
    else:
        values = values * rng.choice([-1, 1], size=3, p=[0.3, 0.7])
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), np.float32))


def _halve(values: Array, content: str) -> Array:
    """Half the resolution: images averaged, geometry picked."""
    if content != "image":
        return values[1::2, 1::2]
    return (values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]) / 4


@torch.no_grad()
def measure_vae(vae: AutoencoderKL, sets: dict[str, Scenes]) -> dict[str, float]:
    """Held-out round trip: depth AbsRel after alignment, mean normal angle in degrees, image PSNR in dB."""
    figures = {}
    device = next(vae.parameters()).device
    for name, kind, halved in (
        ("rooms 96x128", "rooms", True),
        ("rooms 192x256", "rooms", False),
        ("streets 64x224", "streets", False),
    ):
        depth_errors, angles, squared = [], [], []
        for number in range(len(sets[kind]["image"])):
            picture = {key: values[number].astype(np.float32) for key, values in sets[kind].items()}
            if halved:
                picture = {key: _halve(values, key) for key, values in picture.items()}
            relative = torch.from_numpy(picture["relative_depth"]).expand(3, -1, -1)
            stacked = torch.stack(
                [relative, _channels_first(picture["normals"]), _channels_first(picture["image"] / 127.5 - 1)]
            )
            decoded = vae.decode(vae.encode(stacked.to(device)).latent_dist.mean).sample.cpu()
            depth = torch.from_numpy(picture["depth"])[None, None]
            depth_errors.append(_abs_rel(decoded[:1].mean(dim=1, keepdim=True), depth))
            known = stacked[1].norm(dim=0) > 0.5
            cosine = functional.cosine_similarity(decoded[1], stacked[1], dim=0)[known]
            angles.append(torch.rad2deg(cosine.clamp(-1, 1).acos()).mean().item())
            squared.append((decoded[2].clamp(-1, 1) - stacked[2]).square().mean().item() / 4)
        figures[f"{name} abs_rel"] = round(float(np.mean(depth_errors)), 4)
        figures[f"{name} angle_deg"] = round(float(np.mean(angles)), 2)
        figures[f"{name} psnr_db"] = round(float(-10 * np.log10(np.mean(squared))), 1)
    return figures


def _channels_first(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def _abs_rel(prediction: Tensor, depth: Tensor) -> float:
    """AbsRel after alignment over valid pixels between the 2 % and 98 % quantiles, which is all a depth picture holds."""
    low, high = torch.quantile(depth[depth > 0], torch.tensor([0.02, 0.98]))
    valid = (depth >= low) & (depth <= high)
    scale, shift = align_scale_shift(prediction, depth, valid)
    aligned = prediction * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1)
    return ((aligned - depth).abs() / depth)[valid].mean().item()


class _Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.steps = module, decay, 0
        self.values = [parameter.detach().clone() for parameter in module.parameters()]

    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for value, parameter in zip(self.values, self.module.parameters(), strict=True):
            value.lerp_(parameter.detach(), 1 - decay)

    def apply(self) -> None:
        for value, parameter in zip(self.values, self.module.parameters(), strict=True):
            parameter.data.copy_(value)

    def applied(self) -> "_Applied":
        return _Applied(self)


class _Applied:
    """Context in which the averaged parameters stand in for the trained ones."""

    def __init__(self, average: _Average) -> None:
        self.average = average

    def __enter__(self) -> None:
        self.trained = [parameter.detach().clone() for parameter in self.average.module.parameters()]
        self.average.apply()

    def __exit__(self, *_: object) -> None:
        for value, parameter in zip(self.trained, self.average.module.parameters(), strict=True):
            parameter.data.copy_(value)


# Stage 3: UNet


def train_unet(
    vae: AutoencoderKL, train: dict[str, Scenes], prompt: Tensor, steps: int, device: torch.device
) -> nn.Module:
    """A v-prediction UNet that denoises image latents under the empty prompt."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=ROOM_SIZE[0] // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 96),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=HIDDEN_SIZE,
        attention_head_dim=(2, 4, 4),
        norm_num_groups=8,
        use_linear_projection=True,
    ).to(device)
    latents = {kind: _latents(vae, scenes["image"], kind, device) for kind, scenes in train.items()}
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device)
    rng, average = np.random.default_rng(2), _Average(unet, 0.998)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.05)
    losses = []
    for step in tqdm(range(steps), "unet", mininterval=20):
        source = latents["rooms" if rng.random() < 0.85 else "streets"]
        clean = source[torch.from_numpy(rng.integers(len(source), size=8))]
        noise = torch.randn_like(clean)
        timesteps = torch.randint(1000, (len(clean),), device=device)
        signal, spread = alphas[timesteps].sqrt().view(-1, 1, 1, 1), (1 - alphas[timesteps]).sqrt().view(-1, 1, 1, 1)
        output = unet(signal * clean + spread * noise, timesteps, prompt.expand(len(clean), -1, -1)).sample
        loss = functional.mse_loss(output, signal * noise - spread * clean)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update()
        losses.append(loss.item())
        if step % 250 == 249:
            print(step + 1, round(float(np.mean(losses[-250:])), 4), flush=True)
    average.apply()
    return unet


@torch.no_grad()
def _latents(vae: AutoencoderKL, images: Array, kind: str, device: torch.device) -> Tensor:
    """Scaled latents of all images and their mirror images, rooms at half size."""
    encoded = []
    for image in images:
        values = image.astype(np.float32) if kind == "streets" else _halve(image.astype(np.float32), "image")
        picture = _channels_first(values / 127.5 - 1)
        encoded.append(vae.encode(torch.stack([picture, picture.flip(-1)]).to(device)).latent_dist.mean)
    return torch.cat(encoded) * vae.config.scaling_factor


# Text encoder, tokenizer and the folder


def save_text_encoder(out: Path) -> Tensor:
    """Save a tiny random CLIP text encoder with a byte-level tokenizer; the (1,2,hidden) embedding of the empty prompt."""
    folder = out / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=77, pad_token="!"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=2 * HIDDEN_SIZE,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    text_encoder = CLIPTextModel(config).eval()
    text_encoder.save_pretrained(out / "text_encoder")
    with torch.no_grad():
        return text_encoder(**tokenizer("", return_tensors="pt")).last_hidden_state


def main() -> None:
    """Run all stages that are not in the work folder yet, then write the diffusers folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tiny-stable-diffusion")
    parser.add_argument("--work", type=Path, required=True, help="folder for rendered scenes and the stages' results")
    parser.add_argument("--rooms", type=int, default=1000, help="number of training rooms")
    parser.add_argument("--streets", type=int, default=300, help="number of training streets")
    parser.add_argument("--vae-steps", type=int, default=3000, help="optimiser steps of the autoencoder")
    parser.add_argument("--unet-steps", type=int, default=2000, help="optimiser steps of the UNet")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    device, started = torch.device(options.device), time.time()
    train = render_scenes(options.work, "train", options.rooms, options.streets)
    held_out = render_scenes(options.work, "held-out", 64, 32)
    if not (options.work / "vae" / "config.json").exists():
        train_vae(train, held_out, options.vae_steps, device).save_pretrained(options.work / "vae")
    vae = AutoencoderKL.from_pretrained(options.work / "vae").to(device)
    prompt = save_text_encoder(options.out).to(device)
    if not (options.work / "unet" / "config.json").exists():
        train_unet(vae, train, prompt, options.unet_steps, device).save_pretrained(options.work / "unet")
    unet = UNet2DConditionModel.from_pretrained(options.work / "unet")
    # Half precision on disk keeps the folder small; it is read back as float32.
    vae.cpu().half().save_pretrained(options.out / "vae")
    unet.half().save_pretrained(options.out / "unet")
    DDIMScheduler(**SCHEDULE).save_pretrained(options.out / "scheduler")
    parts = {
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    absent = {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    index = {"_class_name": "StableDiffusionPipeline", **parts, **absent}
    (options.out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    figures = measure_vae(AutoencoderKL.from_pretrained(options.out / "vae"), held_out)
    print(json.dumps({"minutes": round((time.time() - started) / 60, 1), **figures}, indent=2))


if __name__ == "__main__":
    main()
