"""The figures: error against evaluations of the UNet, and a strip of predictions."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from geometry.batch import GeometryBatch, Target
from lightning_modules import Sampling
from lightning_modules.training.start import start_from
from research.paper_in_miniature.experiment import Experiment
from research.paper_in_miniature.report import METRICS
from research.paper_in_miniature.runs import Arm
from research.paper_in_miniature.sampling_grid import FIXED_SINGLE_STEP, FLAWED_SINGLE_STEP, SPACINGS, best_slow
from research.paper_in_miniature.settings import TASKS, TaskName
from research.paper_in_miniature.tables import measured

_COLORS = {"leading": "#bf2e20", "trailing": "#312f80"}
_TUNED = {
    "e2e estimator": ("E2E from the estimator", "*", "#e39c53", 1.0),
    "e2e base": ("E2E from the tiny base", "P", "#2a7f62", 0.92),
    "e2e random": ("E2E from random weights", "X", "#777777", 1.08),
    "e2e base longer": ("E2E from the tiny base, longer", "D", "#2a7f62", 0.92),
}
"""Label, marker, colour and place on the axis, so that markers do not hide each other; all take one evaluation."""
_TITLES: dict[TaskName, str] = {"depth": "Depth", "normals": "Surface normals"}
_NUM_EXAMPLES = 3


def write_figures(experiment: Experiment, results: dict[str, Any], folder: Path) -> None:
    """Write ``miniature_evaluations.png`` and ``miniature_strip.png``.

    Args:
        experiment: the runs, for predictions.
        results: what ``report.collect`` returned.
        folder: where to.
    """
    import matplotlib

    matplotlib.use("Agg")
    _plot_evaluations(results, folder / "miniature_evaluations.png")
    _plot_strip(experiment, folder / "miniature_strip.png")


def _plot_evaluations(results: dict[str, Any], path: Path) -> None:
    """Draw the headline error over evaluations of the UNet, like figure 1 of the paper."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
    for task, panel in zip(TASKS, panels, strict=True):
        (metric, heading, _), *_ = METRICS[task]
        for spacing in SPACINGS:
            for size in sorted({cell["ensemble_size"] for cell in results["sampling_grid"]}):
                _plot_line(panel, results["sampling_grid"], task, spacing, size, metric)
        rows = {row["key"]: row for row in results["fine_tuning"][task]}
        for key, (label, marker, color, place) in _TUNED.items():
            if key in rows:
                value, size = measured(rows[key]["scores"], metric), 13 if marker == "*" else 7
                style = {"fmt": marker, "color": color, "markersize": size, "capsize": 3, "label": label, "zorder": 3}
                panel.errorbar(place, value.mean, value.spread, **style)
        panel.set(xscale="log", title=_TITLES[task], xlabel="evaluations of the UNet per image", ylabel=heading)
        ticks = sorted({cell["evaluations"] for cell in results["sampling_grid"] if cell["task"] == task})
        # On a logarithmic axis, labels of numbers as close as 40 and 50 would overlap.
        crowded = {tick for before, tick in pairwise(ticks) if tick < 1.5 * before}
        panel.set_xticks(ticks, ["" if tick in crowded else str(tick) for tick in ticks], minor=False)
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.25)
    handles, labels = panels[0].get_legend_handles_labels()
    panels[1].legend(handles, labels, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_line(panel: Any, grid: list[dict[str, Any]], task: TaskName, spacing: str, size: int, metric: str) -> None:  # noqa: ANN401
    cells = [c for c in grid if (c["task"], c["spacing"], c["ensemble_size"]) == (task, spacing, size)]
    if not cells:
        return
    cells.sort(key=lambda cell: cell["evaluations"])
    values = [measured(cell["scores"], metric) for cell in cells]
    panel.errorbar(
        [cell["evaluations"] for cell in cells],
        [value.mean for value in values],
        [value.spread for value in values],
        color=_COLORS[spacing],
        linestyle="-" if size == 1 else "--",
        marker="o" if size == 1 else "s",
        markersize=4,
        capsize=3,
        label=f"estimator, {spacing}" + (f", {size} members" if size > 1 else ""),
    )


def _plot_strip(experiment: Experiment, path: Path) -> None:
    """Draw images with what the estimators say about them, and the truth: first depth, then normals."""
    from matplotlib import pyplot

    batch = _examples(experiment)
    blocks = [[("image", (batch.image + 1) / 2), *_predictions(experiment, task, batch)] for task in TASKS]
    figure = pyplot.figure(figsize=(1.5 * len(blocks[0]), len(blocks) * (0.98 * _NUM_EXAMPLES + 0.25)))
    for block, part in zip(blocks, figure.subfigures(len(blocks), 1, squeeze=False)[:, 0], strict=True):
        axes = part.subplots(_NUM_EXAMPLES, len(block))
        for column, (title, images) in enumerate(block):
            axes[0, column].set_title(title, fontsize=8, pad=3)
            for number in range(_NUM_EXAMPLES):
                axes[number, column].imshow(images[number].movedim(0, -1).clamp(0, 1).numpy())
                axes[number, column].axis("off")
        part.subplots_adjust(left=0.002, right=0.998, bottom=0.004, top=0.93, wspace=0.03, hspace=0.05)
    # 256 colours keep the pages light that show it.
    stream = io.BytesIO()
    figure.savefig(stream, dpi=100)
    pyplot.close(figure)
    image = Image.open(stream).convert("RGB")
    image.quantize(palette=image.quantize(256), dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def _examples(experiment: Experiment) -> GeometryBatch:
    """Return evaluation images at even distances, chosen by their number alone."""
    data = experiment.runs.halls.evaluation()
    data.setup("validate")
    batches = list(data.val_dataloader()[0])
    images = [batch[number : number + 1] for batch in batches for number in range(len(batch))]
    return _joined([images[(2 * row + 1) * len(images) // (2 * _NUM_EXAMPLES)] for row in range(_NUM_EXAMPLES)])


def _joined(parts: list[GeometryBatch]) -> GeometryBatch:
    """Return images of one data set and one size as one batch."""
    targets = {
        name: Target(*(torch.cat(tensors) for tensors in zip(*(part.targets[name] for part in parts), strict=True)))
        for name in parts[0].targets
    }
    image, keys = torch.cat([part.image for part in parts]), [key for part in parts for key in part.key]
    return GeometryBatch(image, targets, keys, parts[0].dataset)


def _predictions(experiment: Experiment, task: TaskName, batch: GeometryBatch) -> list[tuple[str, Tensor]]:
    settings = experiment.settings
    estimator, tuned = Arm(task, "diffusion"), Arm(task, start="estimator")
    slow_way = best_slow(experiment, task)[0].sampling
    ways: list[tuple[str, Arm, Sampling | None]] = [
        (f"{slow_way.num_steps} steps x {slow_way.ensemble_size}, {slow_way.spacing}", estimator, slow_way),
        ("1 step, leading", estimator, FLAWED_SINGLE_STEP),
        ("1 step, trailing", estimator, FIXED_SINGLE_STEP),
        ("1 step, E2E", tuned, None),
    ]
    columns, truth = [], torch.empty(0)
    for title, arm, sampling in ways:
        run = experiment.run(arm, settings.seeds[0])
        model = experiment.runs.build(run, sampling)
        start_from(model, str(experiment.runs.checkpoint(run, experiment.estimator_run)))
        with torch.no_grad():
            shown, truth, _ = model.task.visualize(model.eval()(batch.image), batch)
        columns.append((title, shown))
    return [*columns, (f"true {task}", truth)]
