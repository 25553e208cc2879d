"""The diffusers format: a folder that a stock Marigold pipeline loads without custom code."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geometry.errors import InputError
from lightning_modules.diffusion import DiffusionEstimator
from lightning_modules.export.denoising import denoising_parts
from lightning_modules.export.folding import fold
from lightning_modules.export.parts import network_of
from lightning_modules.inference.loading import LoadedModel
from lightning_modules.inference.predictor import DEFAULT_PROCESSING_RES
from lightning_modules.networks.base_files import Base
from lightning_modules.networks.ddim import make_ddim
from lightning_modules.networks.pretrained import load_part, load_text_encoder
from lightning_modules.networks.stable_diffusion.base_check import check_base

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VARIANTS = {"float16": "fp16", "bfloat16": "bf16"}
_SHORT_PROMPT = 2


def write_diffusers(model: LoadedModel, folder: Path, dtype: str) -> None:
    """Write a model in float32, and in a smaller type beside it if asked.

    Args:
        model: a trained model.
        folder: where to; must be empty.
        dtype: float32; or float16 or bfloat16, which add the variant fp16 or bf16.

    Raises:
        InputError: the model cannot be exported, or its base is out of reach.
    """
    pipeline = _pipeline(model)
    pipeline.save_pretrained(folder, safe_serialization=True)
    if dtype in VARIANTS:
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            torch.nn.Module.to(part, getattr(torch, dtype))
        pipeline.save_pretrained(folder, variant=VARIANTS[dtype], safe_serialization=True)
    for file in folder.glob("**/*config.json"):
        _forget_origin(file)


def stock_predictions(
    folder: Path, images: Sequence[np.ndarray], seeds: Sequence[int], variant: str | None
) -> Iterator[np.ndarray]:
    """Yield what stock diffusers predicts from an exported folder, at native size: for every image, for every seed.

    Args:
        folder: the export.
        images: (H,W,3) uint8 each.
        seeds: of the pipeline's noise.
        variant: of the weights. They are computed with in float32: the pipelines do not run in half precision on CPUs.

    Yields:
        float32: published predictions, (H,W) for a single channel, else (H,W,C).
    """
    from diffusers import DiffusionPipeline

    pipeline: Any = DiffusionPipeline.from_pretrained(
        str(folder), variant=variant, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    for image in images:
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            prediction = pipeline(image / np.float32(255), processing_resolution=0, generator=generator).prediction[0]
            yield prediction[..., 0] if prediction.shape[-1] == 1 else prediction


def _pipeline(model: LoadedModel) -> Any:  # noqa: ANN401 - one of several pipelines
    import diffusers
    from diffusers.utils.logging import disable_progress_bar

    disable_progress_bar()
    estimator, network = model.estimator, network_of(model.estimator)
    base = check_base(model.base)
    modality = estimator.task.modality
    stock = modality.stock_pipeline
    if stock is None:
        raise InputError(f"no pipeline of diffusers holds {modality.title}; export it with --format torch or onnx.")
    if problem := modality.describe_stock_mismatch():
        raise InputError(f"{problem}; export it with --format torch or onnx, which do.")
    parts = denoising_parts(estimator) if isinstance(estimator, DiffusionEstimator) else fold(estimator)
    shared = {
        "unet": parts.unet,
        "vae": parts.vae,
        "scheduler": make_ddim(network.noise_process.scheduler.config, **parts.scheduler_options),
        "text_encoder": load_text_encoder(base),
        "tokenizer": _tokenizer(base, is_padded=network.prompt_embedding.shape[1] > _SHORT_PROMPT),
        "default_denoising_steps": parts.num_steps,
        "default_processing_resolution": DEFAULT_PROCESSING_RES,
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


def _forget_origin(file: Path) -> None:
    """Take the folder that a part was loaded from out of its config."""
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.pop("_name_or_path", None) is not None:
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
