"""Configurations: of a run for ``predict`` and ``export``, and of ``train.py``."""

from functools import cache
from pathlib import Path

import yaml

from lightning_modules.inference.loading import build_estimator
from lightning_modules.inference.run_config import base_of, make_plain, read_config
from tests.helpers.hostile.formats import Format
from tests.helpers.hostile.formats.models import base
from tests.helpers.hostile.mutations import TEXT_FORMAT

_NETWORK = {"class_path": "lightning_modules.StableDiffusion", "init_args": {"base": "", "noise": "zeros"}}
_MODEL = {
    "class_path": "lightning_modules.SingleStepEstimator",
    "init_args": {"network": _NETWORK, "task": "lightning_modules.Depth", "warmup_steps": 3},
}


@cache
def _config() -> bytes:
    _NETWORK["init_args"]["base"] = str(base())
    content = {
        "name": "tiny",
        "seed_everything": 3,
        "model": _MODEL,
        "data": {"class_path": "datamodules.GeometryDataModule", "init_args": {"datasets": [{"path": "/none"}]}},
        "trainer": {"max_steps": 9, "accelerator": "cpu", "accumulate_grad_batches": 3},
    }
    return yaml.safe_dump(content).encode()


def _read_run_config(folder: Path, data: bytes) -> None:
    (folder / "config.yaml").write_bytes(data)
    config = read_config([folder / "config.yaml"])
    make_plain(config)
    base_of(config)
    build_estimator(config["model"])


def _read_train_config(folder: Path, data: bytes) -> None:
    """Go as far as ``fit`` goes before there is data: /none does not exist."""
    import train

    (folder / "config.yaml").write_bytes(data)
    train.main(["fit", f"--config={folder / 'config.yaml'}", f"--trainer.default_root_dir={folder}"])


def _bombs(chance):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, chance.choice((3, 7)))]
    return chance.choice(
        (
            "\n".join(lines).encode(),
            b"model: !!python/object/apply:os.system ['true']\n",
            b"model: &m {a: *m}\n",
            b"model: " + b"[" * 2000,
            b"model: " + b"{a: " * 300 + b"1" + b"}" * 300,
            b"model: ${model}\n",
            b"model: {a: '${.b}', b: '${.a}'}\n",
            b"\xff\xfe" + "model: 1".encode("utf-16-le"),
            b"? [a]\n: 1\n",
            b"model: 2001-13-45T99:99:99\n",
            b"1: 2\nmodel: {1: 2}\n",
            _config().replace(b"lightning_modules.Depth", b"os.system"),
            _config().replace(b"lightning_modules.SingleStepEstimator", b"antigravity"),
            _config().replace(b"lightning_modules.StableDiffusion", b"subprocess.Popen"),
        )
    )


FORMATS = [
    Format("config.yaml of a run", lambda: [_config()], _read_run_config, TEXT_FORMAT, (_bombs,)),
    Format("config.yaml of train.py", lambda: [_config()], _read_train_config, TEXT_FORMAT, (_bombs,), lacks_more=True),
]
