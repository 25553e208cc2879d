"""Writes an export under a temporary name, checks it against the checkpoint, and only then gives it its name."""

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from geometry.errors import InputError, one_line
from geometry.files.locks import sole_use
from geometry.files.paths import check_writable
from geometry.files.storage import storage_problem
from lightning_modules.diffusion import DiffusionEstimator
from lightning_modules.export.card import ExportRecord, describe, pipeline_model, write_card
from lightning_modules.export.merging import merge_difference
from lightning_modules.export.metadata import program_metadata
from lightning_modules.export.programs import largest_size, run_onnx, run_torch, write_onnx, write_torch
from lightning_modules.export.verification import Agreement, compare, probe
from lightning_modules.inference.loading import LoadedModel
from lightning_modules.inference.predictor import Predictor
from lightning_modules.inference.results import make_output
from lightning_modules.networks.pipeline_folder import EXPORT_RECORD, VARIANTS, pipeline_folder
from lightning_modules.trained_on import default_resolution

Format = Literal["diffusers", "torch", "onnx"]
Dtype = Literal["float32", "float16", "bfloat16"]


def _write_diffusers(model: LoadedModel, folder: Path, dtype: str) -> None:
    """Write a folder that diffusers loads, in float32, and in a smaller type beside it if asked."""
    writer = pipeline_folder(model.estimator.network)
    writer.write(pipeline_model(model), model.base, folder, dtype, default_resolution(model.estimator.trained_on))


# What writes each format; some return the smallest side, in pixels, of the images that what they wrote takes.
FORMATS: dict[str, Callable[[LoadedModel, Path, str], int | None]] = {
    "diffusers": _write_diffusers,
    "torch": lambda model, folder, dtype: write_torch(model.estimator, folder, dtype, program_metadata(model)),
    "onnx": lambda model, folder, dtype: write_onnx(model.estimator, folder, dtype, program_metadata(model)),
}
_SEEDS = (0, 1, 2)
# Of the images that exports are checked on, in the network's size_multiple; pixels more are what has to be padded.
_CHECKED_SIZES = ((8, 12), (14, 7))
_ODD_PIXELS = (1, 2)


@dataclass(frozen=True)
class ExportOptions:
    """What to export, and where to.

    Attributes:
        output: folder to write.
        format: diffusers, torch or onnx.
        dtype: arithmetic; for diffusers, a smaller type is written beside float32.
        overwrite: replace an existing folder.
    """

    output: Path
    format: Format = "diffusers"
    dtype: Dtype = "float32"
    overwrite: bool = False


def export_model(model: LoadedModel, options: ExportOptions) -> ExportRecord:
    """Export a trained model. Nothing is left behind unless the export agrees with the model.

    Args:
        model: a trained model.
        options: what to export, and where to.

    Returns:
        What the export states about itself, with its difference from the model.

    Raises:
        InputError: the output exists, the model cannot be exported so, or the export is wrong.
    """
    output = options.output
    make_output(output.parent)
    with sole_use(output.parent, f".{output.name[:80]}.lock"):
        return _export_alone(model, options)


def _export_alone(model: LoadedModel, options: ExportOptions) -> ExportRecord:
    output = options.output
    check_output(output, options.overwrite)
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{output.name[:80]}-", dir=output.parent))
    except OSError as error:
        raise InputError(f"--output {output} cannot be made: {error.strerror}.") from error
    try:
        smallest = FORMATS[options.format](model, partial, options.dtype) or 1
        agreements = _check(_without_ensemble(model), partial, options, smallest)
        merged = merge_difference(model.estimator.network, _images(model))
        record = describe(model, options.format, options.dtype, agreements, merged)
        write_card(model, record, partial, output.name)
        partial.chmod(0o755)
        _put_in_place(partial, output)
    except Exception as error:
        if (problem := storage_problem(error)) is not None:
            raise InputError(f"--output {output} cannot be written ({problem}). Nothing was changed.") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def check_output(output: Path, overwrite: bool) -> None:
    """Check that a folder can be written.

    Raises:
        InputError: it exists and must not be overwritten, holds anything but an export, or is no folder.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; give a folder.")
    check_writable(output, "--output")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise InputError(f"--output {output} exists and is not empty; give another folder, or --overwrite.")
    if output.is_dir() and any(output.iterdir()) and not (output / EXPORT_RECORD).is_file():
        raise InputError(
            f"--output {output} holds no export, and --overwrite replaces nothing else; give another folder."
        )


def _put_in_place(partial: Path, output: Path) -> None:
    """Give a finished folder its name; a former one stays until the new one is there."""
    former = partial.with_name(partial.name + ".former")
    if output.exists():
        output.rename(former)
    partial.rename(output)
    shutil.rmtree(former, ignore_errors=True)


def _check(model: LoadedModel, folder: Path, options: ExportOptions, smallest: int) -> list[Agreement]:
    """Compare an export with its model at sizes that it was not made with; first in float32, then a variant."""
    if options.format != "diffusers":
        return [compare(_program_pairs(model, folder, options.format, smallest), options.dtype)]
    agreements = [compare(_stock_pairs(model, folder, None), "float32")]
    if options.dtype in VARIANTS:
        agreements.append(compare(_stock_pairs(model, folder, VARIANTS[options.dtype]), options.dtype))
    return agreements


def _program_pairs(
    model: LoadedModel, folder: Path, export_format: str, smallest: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    first, second = _images(model, smallest)
    for batch in (np.stack([first, first[::-1], first[:, ::-1]]), second[None]):
        outputs = _run_program(folder, export_format, batch)
        for expected, found in zip(_native(model, 0).predict(list(batch)), outputs, strict=True):
            yield expected, found[0] if len(found) == 1 else found.transpose(1, 2, 0)


def _run_program(folder: Path, export_format: str, images: np.ndarray) -> np.ndarray:
    """Return what a written program says of images (B,H,W,3) uint8.

    Raises:
        InputError: it does not run on them, which are of another size than those that it was traced with.
    """
    run = run_torch if export_format == "torch" else run_onnx
    try:
        return run(folder, np.ascontiguousarray(images.transpose(0, 3, 1, 2)) / np.float32(255))
    except Exception as error:  # whatever runs it raises where a size was taken for a constant
        if storage_problem(error) is not None:
            raise
        raise InputError(
            f"the export is wrong: it does not run on {len(images)} images of {images.shape[1]}x{images.shape[2]} "
            f"pixels ({one_line(error, 200)}). Nothing was written."
        ) from error


def _stock_pairs(model: LoadedModel, folder: Path, variant: str | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    images = _images(model)
    found = pipeline_folder(model.estimator.network).predictions(folder, images, _SEEDS, variant)
    for image in images:
        for seed in _SEEDS:
            yield _native(model, seed)(image), next(found)


def _images(model: LoadedModel, smallest: int = 1) -> list[np.ndarray]:
    """Return the images that an export is checked on, with no side below ``smallest`` pixels."""
    network = model.estimator.network
    most = largest_size(network) - 1  # so that the pixels more fit, too
    images = []
    for seed, size in enumerate(_CHECKED_SIZES):
        sides = [min(side, most) * network.size_multiple + more for side, more in zip(size, _ODD_PIXELS, strict=True)]
        height, width = (max(side, smallest) for side in sides)
        images.append(probe(height, width, seed))
    return images


def _without_ensemble(model: LoadedModel) -> LoadedModel:
    """Return a model that predicts from one noise: a pipeline's ensemble is an argument of its call, of other noise."""
    if not isinstance(model.estimator, DiffusionEstimator):
        return model
    estimator = copy.copy(model.estimator)
    estimator.sampling = replace(estimator.sampling, ensemble_size=1)
    return replace(model, estimator=estimator)


def _native(model: LoadedModel, seed: int) -> Predictor:
    return Predictor(model.estimator, processing_res=0, tile_size=0, device="cpu", seed=seed)
