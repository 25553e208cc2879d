"""Turns what training left behind, or an exported folder, into an estimator that is ready to predict."""

import json
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jsonargparse import ArgumentParser

from geometry.command_line.messages import readable_error
from geometry.errors import InputError, check_choice, one_line
from geometry.files.paths import given_path
from geometry.files.reading import read_text_file
from lightning_modules.command_line.console import input_error_behind
from lightning_modules.diffusion import DiffusionEstimator
from lightning_modules.estimator import Estimator
from lightning_modules.inference.run_config import (
    base_of,
    make_plain,
    read_config,
    set_base,
)
from lightning_modules.networks.base_files import INDEX
from lightning_modules.networks.pipeline_folder import EXPORT_RECORD
from lightning_modules.networks.stock_models import read_pipeline_folder
from lightning_modules.shipped import find_folder
from lightning_modules.single_step import SingleStepEstimator
from lightning_modules.tasks import stock_task
from lightning_modules.trained_on import CHECKPOINT_KEY, TrainedOn, check_same_values, describe_training, read_record
from lightning_modules.training.found_runs import BEST_OR_LAST, FoundRun, find_run
from lightning_modules.training.run_choice import run_of_earlier_version, runs_of
from lightning_modules.training.run_folders import newest_run

EmaChoice = Literal["auto", "true", "false"]


@dataclass(frozen=True)
class LoadedModel:
    """An estimator with its trained weights, and where they come from.

    Attributes:
        estimator: in eval mode, on the CPU, in float32.
        source: the checkpoint file, or the exported folder or hub id.
        base: folder or hub id of the base model.
        config: the run's configuration; empty for an export.
        step: optimiser steps that the checkpoint saw; None for an export.
        used_ema: the weights are the moving average.
        run_folder: the folder of the run, where it is known.
        taken: one line that says which file of which run it is, and whether there is a better one; empty for an export.
    """

    estimator: Estimator
    source: str
    base: str
    config: dict[str, Any]
    step: int | None = None
    used_ema: bool = False
    run_folder: Path | None = None
    taken: str = ""


def load_model(
    source: str | Path,
    configs: Sequence[str | Path] = (),
    base: str | None = None,
    ema: EmaChoice = "auto",
    checkpoint: str | None = None,
) -> LoadedModel:
    """Return a trained model.

    Args:
        source: a checkpoint file; a run's folder ``runs/NAME/version_N`` or the folder of all runs of a name, of which
            the newest is taken; ``last`` or ``best`` for the newest run of the configuration's name; an exported
            folder; or the hub id of a Marigold model.
        configs: configuration files of the run, laid over one another; by default the ``config.yaml`` of the run.
        base: base model in place of the configured one, for instance because its folder has moved.
        ema: whether to take the moving average of the weights: auto takes it where the checkpoint has one.
        checkpoint: which checkpoint of a run: last, best by the metric that it watched, or a file; by default the last.

    Raises:
        InputError: the source, its configuration or its base cannot be found or read, or they do not fit together.
    """
    check_choice("ema", ema, get_args(EmaChoice))
    if str(source) in BEST_OR_LAST:
        checkpoint = str(source)
        config = read_config([Path(name) for name in configs])
        source = runs_of(config)
        if newest_run(source) is None:
            source = run_of_earlier_version(config) or source
    path = given_path(source, "the model")
    if (path / INDEX).is_file() or (not path.exists() and _may_be_hub_id(str(source))):
        return _load_export(str(path) if path.is_dir() else str(source))
    return _load_checkpoint(find_run(path, checkpoint), configs, base, ema)


def build_estimator(model: dict[str, Any]) -> Estimator:
    """Return the estimator that the ``model`` section of a configuration describes.

    Args:
        model: ``class_path`` and ``init_args``.

    Raises:
        InputError: the section cannot be understood, or the base cannot be loaded.
    """
    parser = ArgumentParser(exit_on_error=False)
    # As Lightning does: libraries of optimisers may name no types.
    parser.add_subclass_arguments(Estimator, "model", fail_untyped=False)
    try:
        return parser.instantiate_classes(parser.parse_object({"model": model})).model
    except Exception as error:
        mistake = input_error_behind(error)
        if mistake is not None:
            raise InputError(mistake) from error
        if isinstance(error, ValueError | TypeError | ArgumentError):
            raise InputError(f"the configuration's model cannot be built: {readable_error(str(error))}") from error
        raise


def _load_checkpoint(run: FoundRun, configs: Sequence[str | Path], base: str | None, ema: EmaChoice) -> LoadedModel:
    from lightning_modules.training.checkpoint_content import read_checkpoint  # slow to import

    file = run.checkpoint
    checkpoint = read_checkpoint(file)
    config = read_config([Path(name) for name in configs] or [run.config])
    if base is not None:
        set_base(config, base)
    make_plain(config)
    try:
        estimator = build_estimator(config["model"])
    except InputError as error:
        if find_folder(base_of(config)):
            raise
        raise InputError(f"{error} If it has moved, name its folder with --base, or base=... in Python.") from error
    weights, used_ema = _choose_weights(checkpoint, ema, file)
    estimator.check_fits(weights)
    if CHECKPOINT_KEY in checkpoint:
        estimator.trained_on = read_record(checkpoint[CHECKPOINT_KEY], file)
        check_same_values(estimator.trained_on, estimator.task.modalities, file)
    estimator.load_state_dict(weights, strict=False)
    return LoadedModel(
        estimator.eval().requires_grad_(False),
        source=str(file),
        base=base_of(config),
        config=config,
        step=checkpoint.get("global_step"),
        used_ema=used_ema,
        run_folder=run.folder.absolute() if run.config.is_file() else None,
        taken=run.describe(),
    )


def _choose_weights(checkpoint: dict[str, Any], ema: EmaChoice, file: Path) -> tuple[dict[str, torch.Tensor], bool]:
    average = checkpoint.get("ema_state_dict")
    if ema == "true" and not average:
        raise InputError(f"{file} holds no moving average of the weights; leave --ema at auto or false.")
    if ema == "false" or not average:
        return dict(checkpoint["state_dict"]), False
    return {**checkpoint["state_dict"], **average}, True


def _load_export(folder: str) -> LoadedModel:
    found = read_pipeline_folder(folder)
    task = stock_task(found.modality)
    estimator: Estimator = SingleStepEstimator(found.network, task)
    if found.sampling is not None:
        estimator = DiffusionEstimator(found.network, task, found.sampling)
    estimator.trained_on = _training_of_export(folder, estimator)
    return LoadedModel(estimator.eval().requires_grad_(False), source=folder, base=folder, config={})


def _training_of_export(folder: str, estimator: Estimator) -> TrainedOn | None:
    """Return what an export says that it was trained on; of a model from elsewhere, what its pipeline takes."""
    found = _json_part(folder, EXPORT_RECORD).get(CHECKPOINT_KEY)
    if isinstance(found, dict):
        return read_record(found, f"{folder}/{EXPORT_RECORD}")
    resolution = _json_part(folder, INDEX).get("default_processing_resolution")
    if type(resolution) is not int:
        return None
    known = replace(describe_training({}, [estimator.task.modality]), processing_res=resolution)
    return read_record(known.to_record(), f"{folder}/{INDEX}")


def _json_part(folder: str, name: str) -> dict[str, Any]:
    """Return a JSON file of a model; nothing if it is not there or holds something else."""
    with suppress(InputError, ValueError, RecursionError):
        content = json.loads(read_part_of(folder, name))
        return content if isinstance(content, dict) else {}
    return {}


def read_part_of(base: str, name: str) -> str:
    """Return a small text file of a model, from its folder or from the hub.

    Args:
        base: folder or hub id.
        name: the file's path within the model.

    Raises:
        InputError: it cannot be had.
    """
    import huggingface_hub

    folder = find_folder(base)
    try:
        file = folder / name if folder else Path(huggingface_hub.hf_hub_download(base, name))
        return read_text_file(file)
    except Exception as error:  # whatever the hub's client raises
        raise InputError(f"cannot read {name} of {base}: {one_line(error, 200)}") from error


def _may_be_hub_id(source: str) -> bool:
    owner = source.split("/")[0]
    return source.count("/") == 1 and owner not in ("", ".", "..", "~") and not Path(owner).is_dir()
