"""The images on which two runs differ most, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from geometry.files.images import open_image
from geometry.files.limits import MAX_SAMPLE_PIXELS
from geometry.files.writing import write_whole
from lightning_modules.comparison.runs import EvaluatedRun
from lightning_modules.comparison.tables import paired_values
from lightning_modules.evaluation.tables import more_is_better
from lightning_modules.inference.results import jpeg_bytes

_TEXT_HEIGHT_PX = 22


def write_most_different(
    runs: Sequence[EvaluatedRun], metrics: Sequence[str], folder: Path, count: int
) -> tuple[dict[str, str], list[str]]:
    """Write what the runs predicted where they differ most by the first metric of a dataset, one run above the other.

    Args:
        runs: the runs; the second and every further one are compared with the first.
        metrics: names of the metrics.
        folder: where to.
        count: images per dataset and run.

    Returns:
        What each file shows by its name; and what could not be painted.
    """
    if (folder / "compare.md").is_file():
        for path in folder.glob("*_run[0-9]*_[0-9]*.jpg"):
            path.unlink()
    written: dict[str, str] = {}
    missing: list[str] = []
    for number, run in enumerate(runs[1:], start=2):
        for name in (name for name in runs[0].datasets if name in run.datasets):
            metric = next((m for m in metrics if all(m in each.datasets[name].scores for each in (runs[0], run))), None)
            if metric is None:
                continue
            pairs = paired_values(runs[0], run, name, metric)
            for rank, key in enumerate(most_different(pairs, count), start=1):
                panels = {each.name: panel_of(each, name, key) for each in (runs[0], run)}
                lacking = [each for each, panel in panels.items() if panel is None]
                if lacking:
                    remedy = "test it with --evaluation.save_predictions true"
                    missing += [f"{name}: {each} holds no visualisation of some images; {remedy}" for each in lacking]
                    continue
                first, second = pairs[key]
                better = runs[0].name if (first > second) == more_is_better(metric) else run.name
                file = f"{name}_run{number}_{rank}.jpg"
                labels = [f"{each}: {metric} {value:.4f}" for each, value in zip(panels, (first, second), strict=True)]
                write_whole(folder / file, _stacked([panel for panel in panels.values() if panel], labels))
                written[file] = f"{name}, {key}: {'; '.join(labels)} ({better} is better)"
    return written, list(dict.fromkeys(missing))


def most_different(pairs: Mapping[str, tuple[float, float]], count: int) -> list[str]:
    """Return the keys of the largest absolute differences, the largest first; values that are not finite do not count.

    Args:
        pairs: values of two runs by key.
        count: most keys.
    """
    finite = {key: abs(b - a) for key, (a, b) in pairs.items() if np.isfinite(a - b)}
    return sorted(finite, key=lambda key: (-finite[key], key))[:count]


def panel_of(run: EvaluatedRun, dataset: str, key: str) -> Path | None:
    """Return the file that shows image, prediction, ground truth and error of a sample, or None.

    Args:
        run: the run.
        dataset: name of the dataset.
        key: of the sample.
    """
    painted = run.folder / "predictions" / dataset / f"{key}.jpg"
    if painted.is_file():
        return painted
    found = (run.folder / dataset / f"{kind}_{n}_{key}.jpg" for kind in ("worst", "median") for n in range(1, 100))
    return next((path for path in found if path.is_file()), None)


def _stacked(panels: Sequence[Path], labels: Sequence[str]) -> bytes:
    """Return a JPEG of panels above each other, each under its label."""
    parts = []
    for panel, label in zip(panels, labels, strict=True):
        with open_image(panel, panel, MAX_SAMPLE_PIXELS) as opened:
            image = np.asarray(opened.convert("RGB"))
        strip = np.full((_TEXT_HEIGHT_PX, image.shape[1], 3), 255, np.uint8)
        text = label.encode("ascii", "replace").decode()
        cv2.putText(strip, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        parts += [strip, image]
    width = max(part.shape[1] for part in parts)
    parts = [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in parts]
    return jpeg_bytes(np.concatenate(parts))
