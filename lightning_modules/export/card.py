"""The model card of an export: what it is, how it was made, how well it does, how to use it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from geometry.modalities import modality_named
from lightning_modules.diffusion import DiffusionEstimator
from lightning_modules.export.licence import licence_line, licence_of, public_name
from lightning_modules.export.merging import MergeDifference
from lightning_modules.export.metadata import PUBLISHED_FRAME
from lightning_modules.export.programs import OPSET, largest_batch
from lightning_modules.export.snippets import onnx_snippet, torch_snippet
from lightning_modules.export.verification import Agreement
from lightning_modules.inference.loading import LoadedModel
from lightning_modules.inference.run_config import last_scores
from lightning_modules.networks.pipeline_folder import EXPORT_RECORD, VARIANTS, PipelineModel, pipeline_folder
from lightning_modules.trained_on import DEFAULT_PROCESSING_RES, default_resolution

_PAPER = "[Martin Garcia et al., 2025](https://arxiv.org/abs/2409.11355)"
_MARIGOLD = "[Ke et al., 2024](https://arxiv.org/abs/2312.02145)"


@dataclass(frozen=True)
class ExportRecord:
    """What an export states about itself, as ``onestep.json``.

    Attributes:
        format: diffusers, torch or onnx.
        dtype: float32, float16 or bfloat16.
        predicts: name of the modality.
        noise: what the network is given in place of a noisy latent, or what denoising starts from.
        size_multiple: what both sides of an image must be multiples of, in pixels.
        step: optimiser steps; None if unknown.
        moving_average: the weights are a moving average.
        agreement: difference from the checkpoint.
        variant_agreement: that of the smaller weights beside float32, if there are any.
        denoises: a diffusion estimator, whose prediction takes several steps from noise.
        num_steps: denoising steps.
        ensemble_size: number of predictions that the checkpoint combines; an export makes one.
        trained_on: what the model was trained on; None if the checkpoint does not say.
        meaning: what a predicted value says.
        frame: camera frame of predicted vectors; None where there are none.
        licence: of the base, as its card states it; None if it does not.
        merged: what merging adapters into a base of 4 bits changed; None where there is none.
        details: what the family adds; written beside the rest.
    """

    format: str
    dtype: str
    predicts: str
    noise: str
    size_multiple: int
    step: int | None
    moving_average: bool
    agreement: Agreement
    variant_agreement: Agreement | None = None
    denoises: bool = False
    num_steps: int = 1
    ensemble_size: int = 1
    trained_on: dict[str, Any] | None = None
    meaning: str = ""
    frame: str | None = None
    licence: str | None = None
    merged: MergeDifference | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the record as the text of ``onestep.json``."""
        content = asdict(self)
        return json.dumps(content | content.pop("details"), indent=2) + "\n"


def describe(
    model: LoadedModel,
    export_format: str,
    dtype: str,
    agreements: list[Agreement],
    merged: MergeDifference | None = None,
) -> ExportRecord:
    """Return the record of an export; the second agreement is that of a variant."""
    estimator = model.estimator
    network = estimator.network
    sampling = estimator.sampling if isinstance(estimator, DiffusionEstimator) else None
    return ExportRecord(
        format=export_format,
        dtype=dtype,
        predicts=estimator.task.modality.name,
        noise=sampling.noise if sampling else network.noise,
        size_multiple=network.size_multiple,
        step=model.step,
        moving_average=model.used_ema,
        agreement=agreements[0],
        variant_agreement=agreements[1] if len(agreements) > 1 else None,
        denoises=sampling is not None,
        num_steps=sampling.num_steps if sampling else 1,
        ensemble_size=sampling.ensemble_size if sampling else 1,
        trained_on=estimator.trained_on.to_record() if estimator.trained_on else None,
        meaning=estimator.task.modality.describe_published(),
        frame=PUBLISHED_FRAME if estimator.task.modality.frame else None,
        licence=licence_of(model.base),
        merged=merged,
        details=network.export_details(),
    )


def write_card(model: LoadedModel, record: ExportRecord, folder: Path, name: str) -> None:
    """Write ``README.md`` and ``onestep.json`` into an export.

    Args:
        model: the model that was exported.
        record: what is known about the export.
        folder: the export.
        name: title of the card.
    """
    (folder / EXPORT_RECORD).write_text(record.to_json(), encoding="utf-8")
    base = public_name(model.base)
    licence = record.licence
    head: dict[str, Any] = {"license": licence or "other", "tags": ["onestep", "single-step", record.predicts]}
    stock = modality_named(record.predicts).stock_pipeline
    head["pipeline_tag"] = stock.tag if stock else "image-to-image"
    if base is not None and "/" in base:
        head["base_model"] = base
    if record.format == "diffusers":
        head["library_name"] = "diffusers"
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {name}\n\n{_summary(record)}",
        f"## Use\n\n{_usage(model, record)}\n\n{_resolution(model)}",
        f"## How it was made\n\n{_recipe(model, record, base)}",
        f"## Scores\n\n{_scores(model)}",
        f"## Check of this export\n\n{_check(record)}",
        f"## Licence\n\n{licence_line(base, licence)} Data sets have licences of their own.",
    ]
    (folder / "README.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _summary(record: ExportRecord) -> str:
    how = (
        f"Denoising steps from gaussian noise: {record.num_steps}, after {_MARIGOLD}."
        if record.denoises
        else f"One evaluation of the network, after {_PAPER}."
    )
    return f"Predicts {record.meaning}. {how}"


def _usage(model: LoadedModel, record: ExportRecord) -> str:
    if record.format == "diffusers":
        handed = pipeline_model(model)
        return pipeline_folder(handed.network).usage(handed, VARIANTS.get(record.dtype))
    modality = model.estimator.task.modality
    low, high = modality.value_range
    output = f"`prediction` (B,{modality.num_channels},H,W) float32 in [{low:g}, {high:g}]"
    if record.format == "torch":
        snippet, where = torch_snippet, "an extra file `onestep.json`; sides below its `smallest_side` are refused"
    else:
        snippet, where = onnx_snippet, f"`session.get_modelmeta().custom_metadata_map`. Opset {OPSET}"
    shapes = (
        f"Input `image` (B,3,H,W) float32 in [0, 1], RGB; output {output}. Any batch up to "
        f"{largest_batch(model.estimator.network)}, any height and width: what the network sees is padded "
        f"with the last row and column to multiples of {record.size_multiple}, and its output is cropped. The file "
        f"holds what the values mean as metadata: {where}."
    )
    code = snippet(modality, default_resolution(model.estimator.trained_on), record.size_multiple)
    return "\n".join(["```python", *code, "```", "", shapes])


def pipeline_model(model: LoadedModel) -> PipelineModel:
    """Return what a family must know of a model to write its folder, or to say how it is used."""
    estimator = model.estimator
    sampling = estimator.sampling if isinstance(estimator, DiffusionEstimator) else None
    return PipelineModel(estimator.network, estimator.task.modality, sampling)


def _resolution(model: LoadedModel) -> str:
    trained = model.estimator.trained_on
    if trained is None:
        return (
            f"The checkpoint does not say at which size of images it was trained; {DEFAULT_PROCESSING_RES} is assumed."
        )
    sizes = trained.sizes_text()
    return (
        "Processing resolution (longest side in pixels at which the network sees an image): "
        f"**{trained.processing_res}**"
        f"{f', for it was trained on images of {sizes}' if sizes else ''}. Far from it, predictions are wrong."
    )


def _recipe(model: LoadedModel, record: ExportRecord, base: str | None) -> str:
    rows: dict[str, Any] = {
        "base": base,
        "optimiser steps": record.step if record.step is not None else "unknown",
        "weights": "moving average" if record.moving_average else "last",
        "noise": record.noise,
    }
    settings: Any = model.config.get("model", {}).get("init_args", {})
    optimizer = settings.get("optimizer")
    if isinstance(optimizer, dict):
        rows["optimiser"] = f"{optimizer.get('class_path')}, {optimizer.get('init_args', {}).get('lr')}"
    task = settings.get("task")
    rows["task"] = task.get("class_path") if isinstance(task, dict) else task
    rows["data"] = ", ".join(_data_names(model.config.get("data"))) or "unknown"
    lines = [f"| {key} | {value} |" for key, value in rows.items() if value is not None]
    return "\n".join(["| | |", "|---|---|", *lines])


def _data_names(data: Any) -> list[str]:  # noqa: ANN401 - any YAML
    """Return the names of the data sets, without the folders they lie in."""
    if not isinstance(data, dict):
        return []
    sets = (data.get("init_args") or {}).get("datasets")
    if isinstance(sets, list):
        return [Path(str(item.get("path"))).name for item in sets if isinstance(item, dict)]
    return [str(data.get("class_path"))]


def _scores(model: LoadedModel) -> str:
    step, scores = last_scores(model.run_folder, model.step) if model.run_folder else (0, {})
    if not scores:
        return "None recorded with the checkpoint."
    rows = [f"| {name.removeprefix('val/')} | {value:.4g} |" for name, value in sorted(scores.items())]
    return "\n".join([f"Last validation of the run, after {step} steps:", "", "| metric | value |", "|---|---|", *rows])


def _check(record: ExportRecord) -> str:
    arithmetic = record.dtype if record.format != "diffusers" else "float32"
    lines = [
        f"Compared with the checkpoint's own prediction {found.num_comparisons} times, over several sizes and seeds: "
        f"largest difference {found.maximum:.2g}, mean {found.mean:.2g} ({name})."
        for name, found in ((arithmetic, record.agreement), (f"variant in {record.dtype}", record.variant_agreement))
        if found
    ]
    if record.merged is not None:
        lines.append(
            "The weights are dequantised ones of 4 bits, with the adapters merged in. Difference of the clean latents "
            f"from 4 bits with adapters beside them: {record.merged}."
        )
    return "\n".join(lines)
