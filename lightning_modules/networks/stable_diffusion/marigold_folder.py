"""Stable Diffusion as a folder for the stock Marigold pipelines of diffusers, written and read."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geometry.errors import InputError
from geometry.modalities import Modality, registered
from lightning_modules.networks.base_files import INDEX, Base
from lightning_modules.networks.ddim import make_ddim
from lightning_modules.networks.pipeline_folder import (
    EXPORT_RECORD,
    PipelineFolder,
    PipelineModel,
    load_pipeline,
    save_pipeline,
)
from lightning_modules.networks.pretrained import load_part
from lightning_modules.networks.sampling import Sampling
from lightning_modules.networks.stable_diffusion.base_check import check_base
from lightning_modules.networks.stable_diffusion.denoising import denoising_parts
from lightning_modules.networks.stable_diffusion.folding import single_step_parts
from lightning_modules.networks.stable_diffusion.network import StableDiffusion
from lightning_modules.networks.stable_diffusion.prompt import load_text_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHORT_PROMPT = 2


class MarigoldFolder(PipelineFolder):
    """Writes and reads the folders of the pipelines that modalities name."""

    network = StableDiffusion

    @property
    def pipelines(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the pipelines' classes."""
        return tuple(_modality_by_pipeline())

    def write(self, model: PipelineModel, base: str, folder: Path, dtype: str, processing_res: int) -> None:
        """Write a model: see ``PipelineFolder``."""
        pipeline = _pipeline(model, base, processing_res)
        save_pipeline(pipeline, (pipeline.unet, pipeline.vae, pipeline.text_encoder), folder, dtype)

    def predictions(
        self, folder: Path, images: Sequence[np.ndarray], seeds: Sequence[int], variant: str | None
    ) -> Iterator[np.ndarray]:
        """Yield what stock diffusers predicts: see ``PipelineFolder``.

        Arithmetic is in float32 because the pipelines do not run in half precision on CPUs.
        """
        pipeline = load_pipeline(folder, variant)
        pipeline.set_progress_bar_config(disable=True)
        for image in images:
            for seed in seeds:
                generator = torch.Generator().manual_seed(seed)
                output = pipeline(image / np.float32(255), processing_resolution=0, generator=generator)
                prediction = output.prediction[0]
                yield prediction[..., 0] if prediction.shape[-1] == 1 else prediction

    def usage(self, model: PipelineModel, variant: str | None) -> str:
        """Return how a written folder is used: see ``PipelineFolder``."""
        code = "\n".join(
            [
                "```python",
                "from diffusers import DiffusionPipeline",
                "from PIL import Image",
                "",
                'pipeline = DiffusionPipeline.from_pretrained("PATH")  # this folder, or its id on the hub',
                'prediction = pipeline(Image.open("photo.jpg").convert("RGB")).prediction',
                "```",
            ]
        )
        sampling = model.sampling or Sampling(num_steps=1)
        depends = (model.sampling.noise if model.sampling else model.network.noise) == "gaussian"
        seed = f"The prediction {'depends on the seed' if depends else 'is the same for every seed'}"
        steps = f"{sampling.num_steps} steps" if sampling.num_steps > 1 else "one step"
        ensemble = (
            f"with an ensemble as in training if the call says `ensemble_size={sampling.ensemble_size}`"
            if sampling.ensemble_size > 1
            else "no ensemble"
        )
        smaller = f' Smaller weights: `variant="{variant}"`.' if variant else ""
        return f"{code}\n\n{seed}; {steps}, {ensemble}.{smaller}"

    def read(self, source: str) -> PipelineModel:
        """Return the model of a folder: see ``PipelineFolder``."""
        base = check_base(source)
        index = base.read_json(INDEX)
        modality = _modality_by_pipeline()[str(index.get("_class_name"))]
        record = base.read_json(EXPORT_RECORD) if (base.folder / EXPORT_RECORD).is_file() else {}
        num_steps = _steps_of(base, index)
        tokens = record.get("prompt_tokens")
        network = StableDiffusion(
            source,
            noise="gaussian" if record.get("noise") == "gaussian" else "zeros",
            prompt_length="max_length" if isinstance(tokens, int) and tokens > _SHORT_PROMPT else "short",
        )
        spacing = network.noise_process.scheduler.config.get("timestep_spacing", "leading")
        denoises = record.get("denoises", num_steps > 1 or spacing != "trailing")
        sampling = Sampling(num_steps, spacing, end="scheduler") if denoises else None
        return PipelineModel(network, modality(), sampling)


def _modality_by_pipeline() -> dict[str, type[Modality]]:
    """Return the modalities that stock pipelines predict, by the class of the pipeline."""
    kinds = registered().values()
    return {kind.stock_pipeline.class_name: kind for kind in kinds if kind.stock_pipeline is not None}


def _pipeline(model: PipelineModel, base_name: str, processing_res: int) -> Any:  # noqa: ANN401 - one of several
    import diffusers
    from diffusers.utils.logging import disable_progress_bar

    disable_progress_bar()
    network = model.network
    assert isinstance(network, StableDiffusion)
    base = check_base(base_name, network.switch)
    if network.image_embedding is not None:
        raise InputError("no pipeline of diffusers embeds the image in place of a prompt; use python train.py predict.")
    stock = model.modality.stock_pipeline
    if stock is None:
        raise InputError(
            f"no pipeline of diffusers holds {model.modality.title}; export it with --format torch or onnx."
        )
    if problem := model.modality.describe_stock_mismatch():
        raise InputError(f"{problem}; export it with --format torch or onnx, which do.")
    parts = single_step_parts(model) if model.sampling is None else denoising_parts(model, model.sampling)
    shared = {
        "unet": parts.unet,
        "vae": parts.vae,
        "scheduler": make_ddim(network.noise_process.scheduler.config, **parts.scheduler_options),
        "text_encoder": load_text_encoder(base),
        "tokenizer": _tokenizer(base, is_padded=network.prompt_embedding.shape[1] > _SHORT_PROMPT),
        "default_denoising_steps": parts.num_steps,
        "default_processing_resolution": processing_res,
    }
    return getattr(diffusers, stock.class_name)(**shared, **stock.options)


def _tokenizer(base: Base, is_padded: bool) -> "PreTrainedTokenizerBase":
    """Return the base's tokenizer; a padded one always pads, for the pipelines ask for no padding."""
    from tokenizers.processors import TemplateProcessing
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

    tokenizer: Any = load_part(CLIPTokenizer.from_pretrained, base, "tokenizer")
    if not is_padded:
        return tokenizer
    special = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    length = tokenizer.model_max_length
    backend = tokenizer.backend_tokenizer
    begin, end, pad = special["bos_token"], special["eos_token"], special["pad_token"]
    backend.post_processor = TemplateProcessing(
        single=[begin, "$A", end] + [pad] * (length - _SHORT_PROMPT),
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in {begin, end, pad}],
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=length, **special)


def _steps_of(base: Base, index: dict[str, Any]) -> int:
    """Return the steps of a Marigold folder, where they are those that diffusers' pipeline would take.

    Raises:
        InputError: the pipeline would do what this project does not.
    """
    scheduler = base.read_json("scheduler/scheduler_config.json")
    if scheduler.get("_class_name") != "DDIMScheduler":
        raise base.refusal(
            "scheduler/scheduler_config.json",
            f"names the class {scheduler.get('_class_name')}, with whose steps nothing is predicted here. Needed: "
            "DDIMScheduler.",
        )
    vae = base.read_json("vae/config.json")
    if found := [name for name in ("shift_factor", "latents_mean", "latents_std") if vae.get(name)]:
        raise base.refusal(
            "vae/config.json",
            f"has a {found[0]}, which diffusers' Marigold pipelines leave out. Needed: none; training on this base "
            "honours it, and exports have it in their weights.",
        )
    steps = index.get("default_denoising_steps")
    if steps is None and scheduler.get("timestep_spacing") == "trailing":
        return 1
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise base.refusal(INDEX, f"has default_denoising_steps: {steps!r}. Needed: how many steps the model takes.")
    return steps
