"""Trained and base models: checkpoints, weights in safetensors, configs of their parts, exported folders."""

import io
import json
import pickle
import random
import shutil
import tempfile
import zipfile
from collections import OrderedDict
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from geometry.modalities import modality_named
from lightning_modules.estimator import Estimator
from lightning_modules.inference.loading import load_model
from lightning_modules.networks.stable_diffusion import StableDiffusion
from lightning_modules.single_step import SingleStepEstimator
from lightning_modules.tasks import Task
from lightning_modules.training.checkpoint_content import peek_checkpoint, read_checkpoint
from tests.helpers.hostile.formats import Format
from tests.helpers.hostile.mutations import JSON_FORMAT, TEXT_FORMAT
from tests.helpers.tiny import build_base


@cache
def base() -> Path:
    """Return a whole base model."""
    return build_base(Path(tempfile.mkdtemp(prefix="attack-base-")))


@cache
def _estimator() -> Estimator:
    return SingleStepEstimator(StableDiffusion(str(base())), Task(modality_named("depth")()))


@cache
def _checkpoint() -> bytes:
    trained = {name: weight for name, weight in _estimator().named_parameters() if weight.requires_grad}
    weights = {name: trained[name].detach() for name in trained}
    momentum = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3)}}
    content = {
        "state_dict": weights,
        "epoch": 1,
        "global_step": 3,
        "pytorch-lightning_version": "2.6.6",
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [{"state": momentum, "param_groups": [{"lr": 1e-3, "params": [0]}]}],
        "lr_schedulers": [{"last_epoch": 3}],
    }
    return _saved(content)


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


_ODD: tuple[Any, ...] = (
    *(None, -1, 1 << 70, "x" * 3000, "\x1b[2J", [], {}, [[[]]], float("nan"), b"\0" * 99, {1: 2}, {"a": None}, (1, 2)),
    *(
        torch.zeros(1).expand(10**6, 10**6),
        torch.zeros(2, device="meta"),
        torch.zeros(3).to_sparse(),
        torch.zeros(2, 0),
    ),
    *(torch.zeros(2, dtype=torch.complex64), torch.full((2,), float("inf")), torch.zeros(4).to(torch.float8_e4m3fn)),
    *(OrderedDict(a=1), {"dirpath": "/etc", "best_k_models": {"/etc/passwd": 1}}),
)


def _odd_checkpoint(chance: random.Random) -> bytes:
    content = torch.load(io.BytesIO(_checkpoint()), weights_only=True)
    place, name = content, chance.choice([*content, "ema_state_dict", "hyper_parameters", "settings", "means"])
    while isinstance(place.get(name), dict) and place[name] and chance.random() < 0.5:
        place, name = place[name], chance.choice(list(place[name]))
    place[name] = chance.choice(_ODD)
    return _saved(content)


class _Program:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("true",)


class _Endless:
    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (1 << 40,)


def _pickle_bomb(chance: random.Random) -> bytes:
    """Return a checkpoint whose pickle is a program, takes endless memory, or is nested."""
    memo = b"\x80\x02]q\x00" + b"(h\x00h\x00h\x00h\x00l0" * 1000 + b"h\x00."
    content = chance.choice(
        (
            pickle.dumps({"state_dict": _Program()}, protocol=chance.choice((0, 2, 4))),
            pickle.dumps({"state_dict": _Endless()}, protocol=2),
            b"\x80\x02" + b"(" * 200_000 + b".",
            b"\x80\x02" + b"]" * 500_000 + b".",
            memo,
            b"\x80\x02X\xff\xff\xff\x7f" + b"a" * 100 + b".",
            b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00trueq\x00\x85R.",
            b"\x80\x02ctorch.serialization\nload\n(X\x01\x00\x00\x00atR.",
            b"\x80\x02}(X\x0a\x00\x00\x00state_dict}X\x01\x00\x00\x00aJ\xff\xff\xff\x7fsu.",
        )
    )
    file = io.BytesIO()
    with zipfile.ZipFile(
        file, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")
    return chance.choice((file.getvalue(), file.getvalue(), content))


def _read_checkpoint(folder: Path, data: bytes) -> None:
    """Read the weights as ``predict`` does, and what else there is as a run does that goes on."""
    file = folder / "last.ckpt"
    file.write_bytes(data)
    peek_checkpoint(file)
    content = read_checkpoint(file)
    _estimator().check_fits(content["state_dict"])
    _estimator().load_state_dict(content["state_dict"], strict=False)


def _read_part(name: str, folder: Path, data: bytes) -> None:
    """Load a base one of whose files has some bytes."""
    place = shutil.copytree(base(), folder / "base")
    (place / name).write_bytes(data)
    StableDiffusion(str(place))


def _whole_part(name: str) -> list[bytes]:
    return [(base() / name).read_bytes()]


def _lying_safetensors(chance: random.Random) -> bytes:
    """Return weights whose header claims odd sizes, places or types."""
    data = _whole_part("unet/diffusion_pytorch_model.safetensors")[0]
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = chance.choice(list(header))
    odd = chance.choice(
        (
            {"shape": [1 << 40, 1 << 40]},
            {"shape": [-1]},
            {"shape": [3]},
            {"data_offsets": [0, 1 << 60]},
            {"data_offsets": [8, 0]},
            {"dtype": "F64"},
            {"dtype": "I8"},
            {"dtype": "F8_E4M3"},
            {"dtype": []},
        )
    )
    if isinstance(header[name], dict):
        header[name] |= odd
    text = chance.choice(
        (json.dumps(header).encode(), json.dumps(header | {"\x1b[2J": header[name]}).encode(), b"[" * 90_000)
    )
    return chance.choice((len(text), 1 << 63, 0)).to_bytes(8, "little") + text + data[8 + length :]


@cache
def _export() -> Path:
    folder = shutil.copytree(base(), Path(tempfile.mkdtemp(prefix="attack-export-")), dirs_exist_ok=True)
    parts = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}
    parts |= {"text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
    index = {"_class_name": "MarigoldDepthPipeline", "default_denoising_steps": 1, "scale_invariant": True}
    index |= {name: ["diffusers", kind] for name, kind in parts.items()}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "onestep.json").write_text(json.dumps({"noise": "zeros", "prompt_tokens": 2, "denoises": False}))
    return folder


def _read_export(name: str, folder: Path, data: bytes) -> None:
    place = shutil.copytree(_export(), folder / "export")
    (place / name).write_bytes(data)
    load_model(place)


_JSON_PARTS = (
    *("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"),
    "tokenizer/tokenizer_config.json",
)

FORMATS = [
    Format(
        "checkpoint",
        lambda: [_checkpoint()],
        _read_checkpoint,
        attacks=(_odd_checkpoint, _odd_checkpoint, _pickle_bomb),
    ),
    *(
        Format(f"base {name}", partial(_whole_part, name), partial(_read_part, name), JSON_FORMAT)
        for name in _JSON_PARTS
    ),
    *(
        Format(f"base {name}", partial(_whole_part, name), partial(_read_part, name), TEXT_FORMAT)
        for name in ("tokenizer/tokenizer.json",)
    ),
    Format(
        "base safetensors",
        partial(_whole_part, "unet/diffusion_pytorch_model.safetensors"),
        partial(_read_part, "unet/diffusion_pytorch_model.safetensors"),
        attacks=(_lying_safetensors,),
    ),
    *(
        Format(
            f"export {name}",
            partial(lambda name: [(_export() / name).read_bytes()], name),
            partial(_read_export, name),
            JSON_FORMAT,
        )
        for name in ("model_index.json", "onestep.json")
    ),
]
