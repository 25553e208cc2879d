"""A network of any family as a folder of diffusers that brings its pipeline along, as a file beside the weights."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geometry.errors import InputError
from geometry.files.json_text import read_json_file
from geometry.files.writing import write_whole
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.networks.pipeline_folder import PipelineFolder, PipelineModel, load_pipeline, save_pipeline
from lightning_modules.networks.source_bundle import SourceBundle

_MODULE = "pipeline"
_MODALITY_METHODS = ("from_image", "publish", "renormalize")
_CODEC_METHODS = ("latent_mean", "normalize", "denormalize", "decoded")


class CodeFolder(PipelineFolder):
    """Writes weights, the embedding of the empty prompt, settings, and the pipeline that runs them.

    The pipeline's code is that of this project: see ``single_step_pipeline``. Such folders are not read again here, for
    code that lies in a folder of weights is never run.
    """

    network = LatentNetwork
    pipelines = ("SingleStepPipeline",)

    def write(self, model: PipelineModel, base: str, folder: Path, dtype: str, processing_res: int) -> None:
        """Write a model: see ``PipelineFolder``."""
        from diffusers.utils.logging import disable_progress_bar
        from safetensors.torch import save_file

        from lightning_modules.networks import single_step_pipeline as written

        disable_progress_bar()
        network = model.network
        parts = network.export_parts()
        _check(model, parts)
        bundle = SourceBundle(known=[name for name in vars(written) if not name.startswith("__")])
        settings = _settings(model, processing_res) | {
            "codec": bundle.add("Codec", network.codec, _CODEC_METHODS),
            "modality": bundle.add("Modality", model.modality, _MODALITY_METHODS),
            "denoiser": bundle.add("Denoiser", network.denoiser, ["model_output"]),
        }
        save_pipeline(written.SingleStepPipeline(**parts), parts.values(), folder, dtype)
        _name_pipeline(folder)
        given = {name: network.get_buffer(name).float().cpu().contiguous() for name in network.denoiser.conditioning}
        save_file(given, folder / written.CONDITIONING)
        (folder / written.SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        code = inspect.getsource(written) + "\n\n" + bundle.text()
        (folder / f"{_MODULE}.py").write_text(code, encoding="utf-8")

    def predictions(
        self, folder: Path, images: Sequence[np.ndarray], seeds: Sequence[int], variant: str | None
    ) -> Iterator[np.ndarray]:
        """Yield what the folder's pipeline predicts: see ``PipelineFolder``. It has just been written here."""
        pipeline = load_pipeline(folder, variant, trust_remote_code=True)
        for image in images:
            prediction = pipeline(image, processing_resolution=0).prediction[0]
            for _ in seeds:  # nothing is drawn by lot
                yield prediction[..., 0] if prediction.shape[-1] == 1 else prediction

    def usage(self, model: PipelineModel, variant: str | None) -> str:
        """Return how a written folder is used: see ``PipelineFolder``."""
        code = "\n".join(
            [
                "```python",
                "from diffusers import DiffusionPipeline",
                "from PIL import Image",
                "",
                "# PATH is this folder, or its id on the hub. trust_remote_code runs its pipeline.py: read it before.",
                'pipeline = DiffusionPipeline.from_pretrained("PATH", trust_remote_code=True)',
                'prediction = pipeline(Image.open("photo.jpg")).prediction  # (1,H,W,C) float32',
                "```",
            ]
        )
        smaller = f' Smaller weights: `variant="{variant}"`.' if variant else ""
        return f"{code}\n\nThe prediction is the same every time; one step, no ensemble.{smaller}"

    def read(self, source: str) -> PipelineModel:
        """Refuse: see the class."""
        raise InputError(
            f"{source} brings its own pipeline, which is not run here. Load it with diffusers as its README.md says, "
            "or give the run or the checkpoint that it was exported from."
        )


def _parts_of_pipeline() -> list[str]:
    """Return the names of the models that the pipeline takes."""
    from lightning_modules.networks.single_step_pipeline import SingleStepPipeline

    return [name for name in inspect.signature(SingleStepPipeline.__init__).parameters if name != "self"]


def _check(model: PipelineModel, parts: Mapping[str, torch.nn.Module]) -> None:
    """Check that a pipeline of one step, without noise, computes what the model does.

    Args:
        model: the model.
        parts: what ``export_parts`` of its network returned: copies of all weights, made once.

    Raises:
        InputError: it does not.
    """
    network, reason = model.network, None
    if model.sampling is not None:
        reason = "denoises in steps from noise"
    elif network.noise not in ("zeros", "none"):
        reason = f"was trained with noise: {network.noise}"
    elif network.switch is not None and not network.denoiser.reads_image_tokens:
        reason = f"has several outputs ({network.switch.option})"
    elif type(network).image_conditioning is not LatentNetwork.image_conditioning:
        reason = "is given an embedding of the image"
    elif foreign := [type(each) for each in parts.values() if type(each).__module__.split(".")[0] != "diffusers"]:
        reason = f"has a model {foreign[0].__name__}, which diffusers does not know"
    elif not parts.keys() <= {*(known := _parts_of_pipeline())}:
        reason = f"has parts of other names than {', '.join(known)}"
    if reason:
        raise InputError(
            f"no pipeline of diffusers holds this {type(network).__name__}: it {reason}. Export it with --format torch "
            "or onnx."
        )


def _settings(model: PipelineModel, processing_res: int) -> dict[str, Any]:
    network = model.network
    timestep = network.timestep.item()
    one = torch.ones(())
    to_clean = network.noise_process.predict_x0(one, torch.zeros(()), timestep).item()
    part = None
    if network.switch is not None:
        part = network.switch.outputs.index(network.switch.output_of(model.modality.name))
    return {
        "processing_res": processing_res,
        "size_multiple": network.size_multiple,
        "timestep": timestep,
        "sees_noise": network.denoiser.denoises,
        "is_residual": network.denoiser.input_mode == "residual",
        # Of an editor's two outputs, the second is said at the image's tokens, and is the clean latent itself.
        "part_of_output": part,
        "output_to_clean": 1.0 if part else to_clean,
    }


def _name_pipeline(folder: Path) -> None:
    """Let the folder's index name the file of the pipeline, and nothing of this project."""
    file = folder / "model_index.json"
    index = read_json_file(file)
    index["_class_name"] = [_MODULE, *CodeFolder.pipelines]
    write_whole(file, json.dumps(index, indent=2) + "\n")
