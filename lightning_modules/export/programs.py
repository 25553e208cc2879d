"""Programs of one piece: an image in, a prediction out, as torch.export or ONNX."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geometry.errors import InputError
from lightning_modules.export.folding import fold
from lightning_modules.export.parts import network_of
from lightning_modules.inference.loading import LoadedModel
from lightning_modules.networks.diffusion_process import clip_like_scheduler

TORCH_FILE, ONNX_FILE = "model.pt2", "model.onnx"
OPSET = 20
_LARGEST_LATENT = 4096
# From 64 images on, diffusers' upsampling takes another path, which the traced program does not hold.
LARGEST_BATCH = 63
# Of the image that the program is traced with, in latent pixels; the sizes it is checked at differ.
_TRACED_BATCH, _TRACED_LATENT = 2, (10, 12)


class Program(nn.Module):
    """Maps images (B,3,H,W) in [0, 1] to published predictions (B,C,H,W), all float32.

    Height and width are multiples of the network's size_multiple; B is at most ``LARGEST_BATCH``.

    Args:
        model: a trained model that needs no noise.
        dtype: arithmetic between input and output.

    Raises:
        InputError: the model cannot be exported, or needs noise.
    """

    prompt: Tensor
    timestep: Tensor

    def __init__(self, model: LoadedModel, dtype: torch.dtype) -> None:
        super().__init__()
        parts = fold(model.estimator)
        if parts.needs_noise:
            raise InputError(
                "a network trained with noise: gaussian gives another prediction for every noise; export it with "
                "--format diffusers."
            )
        network = network_of(model.estimator)
        # Not their own to(): it warns of a list of exceptions that is empty here.
        self.unet: Any = nn.Module.to(parts.unet, dtype)
        self.vae: Any = nn.Module.to(parts.vae, dtype)
        self.modality = model.estimator.task.modality.exported()
        self.dtype = dtype
        self.scheduler_config = dict(network.noise_process.scheduler.config)
        self.register_buffer("prompt", network.prompt_embedding.detach().cpu().to(dtype))
        self.register_buffer("timestep", network.timestep.detach().cpu())
        # Let the UNet always take sizes from its skip connections, so that the traced program holds for any size.
        self.unet.num_upsamplers = 24

    def forward(self, image: Tensor) -> Tensor:
        """Return the published predictions for images."""
        scale = self.vae.config["scaling_factor"]
        latent = scale * self.vae.encode((image * 2 - 1).to(self.dtype)).latent_dist.mean
        prompt = self.prompt.expand(latent.shape[0], -1, -1)
        stacked = torch.cat([latent, torch.zeros_like(latent)], dim=1)
        clean = self.unet(stacked, self.timestep, encoder_hidden_states=prompt, return_dict=False)[0]
        latent = clip_like_scheduler(clean, self.scheduler_config) / scale
        decoded = self.vae.decode(latent, return_dict=False)[0].float()
        return self.modality.publish(self.modality.from_image(decoded))


def write_torch(model: LoadedModel, folder: Path, dtype: str) -> None:
    """Write a ``torch.export`` program with dynamic batch, height and width.

    Args:
        model: a trained model.
        folder: where to.
        dtype: arithmetic of the program: float32, float16 or bfloat16.

    Raises:
        InputError: the model cannot be exported.
    """
    torch.export.save(_trace(model, dtype), folder / TORCH_FILE)


def write_onnx(model: LoadedModel, folder: Path, dtype: str) -> None:
    """Write an ONNX graph with dynamic batch, height and width.

    Args:
        model: a trained model.
        folder: where to.
        dtype: arithmetic of the graph: float32 or float16.

    Raises:
        InputError: the model cannot be exported, or packages are missing.
    """
    _require_onnx()
    if dtype == "bfloat16":
        raise InputError("ONNX Runtime does not compute in bfloat16; choose --dtype float32 or float16.")
    program = torch.onnx.export(
        _trace(model, dtype), opset_version=OPSET, input_names=["image"], output_names=["prediction"], verbose=False
    )
    assert program is not None
    program.save(folder / ONNX_FILE)


def run_torch(folder: Path, images: np.ndarray) -> np.ndarray:
    """Return the output of a written program.

    Args:
        folder: the export.
        images: (B,3,H,W) float32 in [0, 1].
    """
    program = torch.export.load(folder / TORCH_FILE).module()
    with torch.inference_mode():
        return program(torch.from_numpy(images)).numpy()


def run_onnx(folder: Path, images: np.ndarray) -> np.ndarray:
    """Return ONNX Runtime's output, on the CPU.

    Args:
        folder: the export.
        images: (B,3,H,W) float32 in [0, 1].
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / ONNX_FILE, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": images})[0])


def _trace(model: LoadedModel, dtype: str) -> torch.export.ExportedProgram:
    factor = model.estimator.network.size_multiple
    example = torch.rand(_TRACED_BATCH, 3, *(factor * side for side in _TRACED_LATENT))
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    rows, columns = (torch.export.Dim(name, min=2, max=_LARGEST_LATENT) for name in ("latent_rows", "latent_columns"))
    program = Program(model, getattr(torch, dtype)).eval().requires_grad_(False)
    with torch.no_grad():
        return torch.export.export(
            program, (example,), dynamic_shapes=({0: batch, 2: factor * rows, 3: factor * columns},)
        )


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--format onnx needs {error.name}: pip install -e '.[onnx]'.") from error
