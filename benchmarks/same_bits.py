"""Whether a change left every number of training as it was, to the bit.

Run ``python -m benchmarks.same_bits --out before.txt`` before a refactor and ``--out after.txt`` after it, on the same
machine and with the same versions, then ``diff before.txt after.txt``.

Contract: one line per case. ``prediction`` and ``gradient`` are the first 16 digits of a SHA-256 over all values, and
``loss`` is the exact number. The cases are single steps and diffusion steps of random networks on random images, and
the first steps of the two demos: their losses one by one, and the trained weights at the end.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_modules import Depth, DiffusionEstimator, Normals, Sampling, SingleStepEstimator, StableDiffusion
from lightning_modules.estimator import Estimator
from tests.helpers.tiny import build_base, make_batch

_SEEDS = [11, 12]
_DEMOS = ("configs/demo.yaml", "configs/demo_normals.yaml")


def digest(tensors: Iterable[Tensor]) -> str:
    """Return the first 16 digits of the SHA-256 of all values."""
    state = hashlib.sha256()
    for tensor in tensors:
        state.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]


def step(estimator: Estimator) -> str:
    """Return prediction, loss and gradient of one step, condensed."""
    batch = make_batch(height=16, width=24)
    prediction = estimator(batch.image, _SEEDS)
    loss, _ = estimator.training_loss(batch, _SEEDS)
    loss.backward()
    gradients = (weight.grad for weight in estimator.parameters() if weight.grad is not None)
    return f"prediction {digest([prediction])} loss {loss.item()!r} gradient {digest(gradients)}"


def random_networks(folder: Path) -> Iterator[str]:
    """Yield a line for every task, prediction type and kind of noise."""
    for kind in ("v_prediction", "epsilon", "sample"):
        base = str(build_base(folder / kind, kind))
        for task in (Depth, Normals):
            for noise in ("zeros", "gaussian", "pyramid", "none"):
                estimator = SingleStepEstimator(StableDiffusion(base, noise), task())  # type: ignore[arg-type]
                yield f"single step {task.__name__} {kind} {noise}: {step(estimator)}"
            estimator = DiffusionEstimator(StableDiffusion(base), task(), Sampling(num_steps=3, ensemble_size=2))
            yield f"diffusion {task.__name__} {kind}: {step(estimator)}"


class StepRecord(Callback):
    """Notes the loss of every step, and the trained weights at the end."""

    lines: ClassVar[list[str]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:  # noqa: ANN401
        """Note the loss of a step."""
        self.lines.append(f"loss {trainer.global_step} {outputs['loss'].item()!r}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the weights."""
        trained = [weight for weight in pl_module.parameters() if weight.requires_grad]
        self.lines.append(f"weights {digest(trained)}")


def demo(config: str, num_steps: int, folder: Path) -> Iterator[str]:
    """Yield the losses of a demo's first steps, then its weights."""
    from benchmarks.same_bits import StepRecord  # the class that the configuration names, not that of __main__
    from train import main

    StepRecord.lines = []
    options = {
        "trainer.max_steps": num_steps,
        "trainer.default_root_dir": folder,
        "trainer.limit_val_batches": 0,
        "trainer.enable_progress_bar": False,
        "trainer.callbacks+": "benchmarks.same_bits.StepRecord",
        "model.decay_steps": 600,
    }
    main(["fit", "--config", config, *(f"--{name}={value}" for name, value in options.items())])
    yield from (f"{config}: {line}" for line in StepRecord.lines)


def main() -> None:
    """Write the lines to a file, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--steps", type=int, default=24, help="steps of each demo; 0 leaves the demos out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = list(random_networks(Path(folder)))
        for config in _DEMOS if options.steps else ():
            lines += demo(config, options.steps, Path(folder))
    options.out.write_text("\n".join(lines) + "\n")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
