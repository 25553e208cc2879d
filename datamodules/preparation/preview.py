"""A contact sheet of a prepared data set: the image and all modalities side by side."""

from pathlib import Path

import cv2
import numpy as np
import torch

from datamodules.shards.codecs import IMAGE, INFO, encode_image
from datamodules.shards.files import EncodedSample, decode_sample
from datamodules.shards.manifest import Dataset, read_dataset
from datamodules.streaming.order import even_subset
from datamodules.streaming.pipelines import read_numbers
from geometry.colorize import eight_bit
from geometry.errors import InputError
from geometry.files.writing import write_whole
from geometry.modalities import modality_named

Array = np.ndarray

PANEL_WIDTH_PX = 400
LABEL_HEIGHT_PX = 22


def preview_dataset(path: str | Path, out: str | Path, samples_per_split: int = 4) -> Path:
    """Write a contact sheet with a few samples of every split.

    Args:
        path: folder or URL of the data set.
        out: image to write, .png or .jpg.
        samples_per_split: number of rows per split, spread evenly over the split's shards.

    Returns:
        Path of the image.

    Raises:
        InputError: the data set cannot be read, or ``out`` is no .png or .jpg that can be written.
    """
    dataset, target = read_dataset(path), Path(out)
    format_name = target.suffix.removeprefix(".").lower()
    if samples_per_split < 1:
        raise InputError(f"--samples must be at least 1, not {samples_per_split}.")
    if format_name not in ("png", "jpg"):
        raise InputError(f"--output must end in .png or .jpg, not {target.name!r}.")
    rows = [
        _row(dataset, split, sample)
        for split in dataset.manifest.splits
        for sample in _spread_samples(dataset, split, samples_per_split)
    ]
    if not rows:
        raise InputError(f"{dataset.root} holds no samples to show.")
    data = encode_image(np.concatenate(rows), format_name, quality=90)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, data)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}). Choose another --output.") from error
    return target


def _spread_samples(dataset: Dataset, split: str, count: int) -> list[EncodedSample]:
    """Return up to ``count`` samples at even distances in the split."""
    wanted = even_subset(dataset.manifest.num_samples(split), count)
    return next(read_numbers([wanted], dataset, split, (*dataset.manifest.entries, INFO)))


def _row(dataset: Dataset, split: str, encoded: EncodedSample) -> Array:
    if encoded.problem:
        raise InputError(encoded.problem)
    sample = decode_sample(encoded, (*dataset.manifest.entries, INFO))
    panels, facts = [sample[IMAGE]], []
    for name in dataset.manifest.modalities:
        modality = modality_named(name)()
        values = sample[name].astype(np.float32)
        known = modality.is_known(values)
        numbers = modality.numbers(values, known)
        span = f" {modality.describe_range(float(numbers.min()), float(numbers.max()))}" if numbers.size else ""
        origin = f" {sample[INFO][name]}" if name in sample.get(INFO, {}) else ""
        facts.append(f"{name}{span} {100 * known.mean():.0f} %{origin}")
        batch = torch.from_numpy(np.where(known, values, 0)).reshape(1, modality.num_channels, *known.shape)
        panels.append(eight_bit(modality.colorize(batch, torch.from_numpy(known)[None, None]))[0].numpy())
    height = round(PANEL_WIDTH_PX * panels[0].shape[0] / panels[0].shape[1])
    strip = np.concatenate(
        [cv2.resize(p, (PANEL_WIDTH_PX, height), interpolation=cv2.INTER_AREA) for p in panels], axis=1
    )
    text = f"{dataset.manifest.name} {split}  {encoded.key}  {', '.join(facts)}"
    return np.concatenate([_label(text, strip.shape[1]), strip])


def _label(text: str, width: int) -> Array:
    band = np.full((LABEL_HEIGHT_PX, width, 3), 255, np.uint8)
    cv2.putText(band, text, (4, LABEL_HEIGHT_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return band
