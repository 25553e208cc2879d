"""Programs of one piece: an image in, a prediction out, as torch.export or ONNX."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from geometry.errors import InputError, one_line
from geometry.torch_internals import is_refusal_to_trace
from lightning_modules.estimator import Estimator
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.single_step import SingleStepEstimator

TORCH_FILE, ONNX_FILE = "model.pt2", "model.onnx"
# What the file of a torch.export program says of itself, among its extra files.
METADATA = "onestep.json"
OPSET = 20
_LARGEST_SIDE = 32768
# Names of the free dimensions of a program's input and output.
DIMENSIONS = {0: "batch", 2: "height", 3: "width"}
# From 64 images on, diffusers' upsampling takes another path, which the traced program does not hold.
LARGEST_BATCH = 63
# Of the images that the program is traced with, in the network's size_multiple; the sizes it is checked at differ.
_TRACED_BATCH, _TRACED_SIZE = 2, (10, 12)


def largest_size(network: LatentNetwork) -> int:
    """Return the largest side of an image that a program of a network takes, in the network's size_multiple.

    It is below the largest that the network takes, where there is one: of what holds there alone, such as a cut that
    leaves out nothing, the tracer makes a rule.
    """
    multiple, most = network.size_multiple, network.largest_side
    return _LARGEST_SIDE // multiple if most is None else most // multiple - 1


def largest_batch(network: LatentNetwork) -> int:
    """Return how many images a program of a network takes at once: outputs that see each other share the batch."""
    return LARGEST_BATCH // (1 if network.switch is None else network.switch.images_at_once)


class Program(nn.Module):
    """Maps images (B,3,H,W) in [0, 1] to published predictions (B,C,H,W), all float32.

    Height and width are any: what the network sees is padded with the image's last row and column to multiples of its
    size_multiple, as ``Predictor`` does, and its output is cropped. B is at most ``largest_batch``.

    Args:
        estimator: a trained estimator of a single step that needs no noise; it stays as it is.
        dtype: arithmetic between input and output.

    Raises:
        InputError: the estimator takes several steps, needs noise, or its network cannot be traced.
    """

    def __init__(self, estimator: Estimator, dtype: torch.dtype) -> None:
        super().__init__()
        _check_is_one_function(estimator)
        network = estimator.network.export_copy()
        network.denoiser.make_traceable()
        timestep = network.timestep
        # Not their own to(), which in diffusers warns of a list of exceptions that is empty here.
        self.network: LatentNetwork = nn.Module.to(network, dtype)
        network.timestep = timestep  # half precision does not hold all of them
        # What the task makes of a decoded image, without the losses and metrics that are modules of the task.
        self.predict, self.publish = estimator.task.predict, estimator.task.modality.publish
        self.dtype, self.multiple = dtype, network.size_multiple
        switch = network.switch
        self.outputs = [] if switch is None else [switch.output_of(estimator.task.modality.name)]

    def forward(self, image: Tensor) -> Tensor:
        """Return the published predictions for images."""
        codec, (height, width) = self.network.codec, image.shape[-2:]
        padded = _pad_with_edge(_pad_with_edge(image, 2, self.multiple), 3, self.multiple)
        seen = (padded * 2 - 1).to(self.dtype)
        latent = codec.normalize(codec.latent_mean(seen)).contiguous()  # as Codec.encode does, and for its reason
        given = self.network.image_conditioning(seen)
        clean = self.network.clean_latents(latent, torch.zeros_like(latent), given, self.outputs)[0]
        decoded = codec.decoded(codec.denormalize(clean)).float()
        return _first(_first(self.publish(self.predict(decoded)), 2, height), 3, width)


def _pad_with_edge(images: Tensor, dim: int, multiple: int) -> Tensor:
    """Return images whose length along an axis is the next multiple; the last row or column is repeated."""
    length = images.shape[dim]
    places = torch.arange((length + multiple - 1) // multiple * multiple, device=images.device)
    return images.index_select(dim, places.clamp(max=length - 1))


def _first(images: Tensor, dim: int, length: int) -> Tensor:
    """Return the first rows or columns. By index: of a slice, the tracer wants to know whether it leaves out any."""
    return images.index_select(dim, torch.arange(length, device=images.device))


def _check_is_one_function(estimator: Estimator) -> None:
    """Check that a prediction is a function of the image alone, in one evaluation of the network."""
    reason = None
    if not isinstance(estimator, SingleStepEstimator):
        reason = f"{type(estimator).__name__} takes several steps from noise, which no single program holds"
    elif estimator.network.noise not in ("zeros", "none"):
        reason = f"a network trained with noise: {estimator.network.noise} gives another prediction for every noise"
    elif estimator.network.denoiser.untraceable:
        model = type(estimator.network.denoiser.model).__name__
        raise InputError(
            f"{model} {estimator.network.denoiser.untraceable}. Use onestep predict, or Predictor in Python."
        )
    if reason is not None:
        raise InputError(f"{reason}; export it with --format diffusers, or fine-tune it to a single step from zeros.")


def write_torch(estimator: Estimator, folder: Path, dtype: str, metadata: Mapping[str, str]) -> int:
    """Write a ``torch.export`` program with dynamic batch, height and width; return the smallest side that it takes.

    Args:
        estimator: a trained estimator.
        folder: where to.
        dtype: arithmetic of the program: float32, float16 or bfloat16.
        metadata: texts that the file holds beside the program, as JSON under ``METADATA``.

    Raises:
        InputError: the estimator cannot be exported.
    """
    program = _trace(estimator, dtype)
    # The tracer takes a side that is 1 somewhere inside for a constant; the program refuses images as small as that.
    # Beside sides and batch, it may know numbers within the program, of which nothing is bounded.
    smallest = max(int(found.lower) for found in program.range_constraints.values() if found.lower > 0)
    texts = {METADATA: json.dumps({**metadata, "smallest_side": str(smallest)}, indent=2)}
    torch.export.save(program, folder / TORCH_FILE, extra_files=texts)
    return smallest


def write_onnx(estimator: Estimator, folder: Path, dtype: str, metadata: Mapping[str, str]) -> None:
    """Write an ONNX graph with dynamic batch, height and width.

    Args:
        estimator: a trained estimator.
        folder: where to.
        dtype: arithmetic of the graph: float32 or float16.
        metadata: texts that the file holds beside the graph.

    Raises:
        InputError: the estimator cannot be exported, or packages are missing.
    """
    _require_onnx()
    if dtype == "bfloat16":
        raise InputError("ONNX Runtime does not compute in bfloat16; choose --precision float32 or float16.")
    program = torch.onnx.export(
        _trace(estimator, dtype),
        opset_version=OPSET,
        input_names=["image"],
        output_names=["prediction"],
        dynamic_shapes={"image": DIMENSIONS},
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(metadata)
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


def _trace(estimator: Estimator, dtype: str) -> torch.export.ExportedProgram:
    network = estimator.network
    multiple = network.size_multiple
    most = largest_size(network)
    example = torch.rand(_TRACED_BATCH, 3, *(multiple * min(side, most) for side in _TRACED_SIZE))
    program = Program(estimator, getattr(torch, dtype)).eval().requires_grad_(False)
    side = torch.export.Dim.DYNAMIC(min=multiple + 1, max=multiple * most)
    shapes = {0: torch.export.Dim("batch", min=1, max=largest_batch(network)), 2: side, 3: side}
    try:
        with torch.no_grad():
            return torch.export.export(program, (example,), dynamic_shapes=(shapes,))
    except Exception as error:  # of the model of a family that was not written for it
        if not is_refusal_to_trace(error):
            raise
        reason = one_line(error, 240)
        raise InputError(f"{type(network).__name__} cannot be traced for images of any size: {reason}") from error


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--format onnx needs {error.name}: pip install -e '.[onnx]'.") from error
