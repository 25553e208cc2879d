"""What happens beside training: panels of visualisations, throughput, a closing table. One purpose each."""

import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from tqdm import tqdm

from geometry.batch import GeometryBatch
from geometry.errors import InputError
from lightning_modules.command_line.tables import format_table
from lightning_modules.estimator import Estimator
from lightning_modules.training.labels import colour_bars, panel_titles, title_band
from lightning_modules.training.loggers import can_show_images, show_image
from lightning_modules.training.logging_steps import is_logging_step

_GAP_PX = 4


class ValidationPanels(Callback):
    """Shows the first validation images of every data set in TensorBoard or W&B, the same ones every time.

    One image per data set, under a row of titles a row per image: its key, image, prediction, ground truth, error;
    below, what the colours mean.

    Args:
        num_images: Images per data set; 0 shows none.
        max_width_px: Width to which each tile is shrunk, to keep the event files small.
    """

    def __init__(self, num_images: int = 6, max_width_px: int = 256) -> None:
        if num_images < 0 or max_width_px < 1:
            raise InputError(
                f"panels needs num_images of at least 0 and max_width_px of at least 1, got {num_images} and "
                f"{max_width_px}."
            )
        self.num_images = num_images
        self.max_width_px = max_width_px
        self._rows: dict[int, list[Tensor]] = {}
        self._bars: dict[int, Tensor] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Forget the images of the last validation."""
        self._rows = {}

    @torch.no_grad()
    def on_validation_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: Estimator,
        outputs: dict[str, Tensor],
        batch: GeometryBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Paint the rows that are still missing."""
        rows = self._rows.setdefault(dataloader_idx, [])
        missing = self.num_images - max(0, len(rows) - 1)  # the first row is that of the titles
        if missing <= 0 or not trainer.is_global_zero or trainer.sanity_checking:
            return
        if not any(map(can_show_images, trainer.loggers)):
            return
        first = batch[:missing]
        parts = pl_module.task.parts_of(outputs["prediction"][:missing])
        shown = [image for task, part in parts for image in task.visualize(part, first)]
        tiles = [self._tile(image) for image in (first.image.float() / 2 + 0.5, *shown)]
        if not rows:
            modalities, width_px = [task.modality for task, _ in parts], tiles[0].shape[3]
            rows.append(title_band(panel_titles(modalities), width_px))
            self._bars[dataloader_idx] = colour_bars(modalities, width_px, _GAP_PX)
        for row, key in zip(torch.cat(tiles, dim=3).unbind(), first.key, strict=True):
            rows.append(torch.cat([title_band([key], row.shape[2]), row], dim=1))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Write one image per data set."""
        for index, rows in self._rows.items():
            if not rows:
                continue
            narrowest = min(row.shape[2] for row in rows)
            sheet = torch.cat([row[:, :, :narrowest] for row in [*rows, self._bars[index]]], dim=1)[:, :, :-_GAP_PX]
            for logger in filter(can_show_images, trainer.loggers):
                show_image(logger, f"val/{pl_module.val_dataset_names[index]}", sheet, trainer.global_step)

    def _tile(self, image: Tensor) -> Tensor:
        """Shrink an image (B,3,H,W) and leave a gap to the right of it and below."""
        shrink = min(1.0, self.max_width_px / image.shape[3])
        if shrink < 1:
            size = (round(image.shape[2] * shrink), round(image.shape[3] * shrink))
            image = F.interpolate(image, size=size, mode="area")
        return F.pad(image.clamp(0, 1), (0, _GAP_PX, 0, _GAP_PX), value=1.0).cpu()


class RunAnnouncement(Callback):
    """Says at the start what trains, on how many images per step, and where the run's files go.

    Args:
        folder: folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._announced = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: Estimator, batch: GeometryBatch, *_: object) -> None:  # type: ignore[override]
        """Speak once the size of a batch is known."""
        if self._announced:
            return
        self._announced = True
        trained = sum(parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad)
        frozen = sum(parameter.numel() for parameter in pl_module.parameters()) - trained
        size, accumulated, ranks = len(batch), trainer.accumulate_grad_batches, trainer.world_size
        rank_zero_info(
            f"training {trained:,} weights, {frozen:,} are frozen; {size} images x {accumulated} accumulated x "
            f"{ranks} ranks = {size * accumulated * ranks} images per step; files in {self._folder}"
        )


class Throughput(Callback):
    """Logs images per second over all ranks, and the share of time spent waiting for data.

    Both are averages since the last time metrics were logged; validation is left out.
    """

    def __init__(self) -> None:
        self._last_step = 0
        self._restart()

    def _restart(self) -> None:
        self._num_images = 0
        self._busy_s = 0.0
        self._waiting_s = 0.0
        self._mark_s = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Start the clock."""
        self._mark_s = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Book the time since the last batch as waiting."""
        now = time.perf_counter()
        self._waiting_s += now - self._mark_s
        self._mark_s = now

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Estimator, outputs: object, batch: GeometryBatch, *_: object
    ) -> None:
        """Book the time since the start of the batch as busy, and log every so many steps."""
        now = time.perf_counter()
        self._busy_s += now - self._mark_s
        self._mark_s = now
        self._num_images += len(batch)
        has_stepped, self._last_step = trainer.global_step != self._last_step, trainer.global_step
        if has_stepped and is_logging_step(trainer, trainer.global_step):
            total_s = self._busy_s + self._waiting_s
            images_per_s = self._num_images * trainer.world_size / total_s
            pl_module.log("train/images_per_s", images_per_s)
            pl_module.bar_values["images_per_s"] = images_per_s
            pl_module.log("train/data_wait_share", self._waiting_s / total_s)
            self._restart()

    def on_validation_end(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Leave the validation out of the waiting time."""
        self._mark_s = time.perf_counter()


class ValidationSummary(Callback):
    """Prints a line per validation of fit, and closing tables.

    The line has the step, the metric that counts, and the best of the run so far; the tables have all metrics, and the
    one that counts beside what the best constant prediction scores.
    """

    def __init__(self) -> None:
        self._best: dict[str, tuple[float, int]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and its step by data set."""
        return {"best": dict(self._best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a run stopped.

        Args:
            state_dict: what ``state_dict`` returned.
        """
        self._best = {str(name): (float(value), int(step)) for name, (value, step) in state_dict["best"].items()}

    def on_fit_end(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Print the tables, if the last validation saw the final weights."""
        if pl_module.last_validated_step == trainer.global_step:
            self._print(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Print the tables after a validation on its own, and a line after one of fit, which goes on without any."""
        if trainer.state.fn == "validate":
            self._print(trainer, pl_module)
        elif not trainer.sanity_checking:
            self._print_line(trainer, pl_module)
            if problem := describe_lack_of_scores(trainer, pl_module):
                rank_zero_warn(problem)

    def _print_line(self, trainer: Trainer, pl_module: Estimator) -> None:
        metric, parts = pl_module.task.headline_metric, []
        for name in pl_module.val_dataset_names:
            score = _scores_of(trainer, name).get(metric)
            if score is None:
                continue
            best, step = self._best.get(name, (math.inf, 0))
            if score < best:
                self._best[name] = best, step = score, trainer.global_step
            best_text = "best so far" if step == trainer.global_step else f"best {best:.4f} at step {step}"
            best_text = best_text if math.isfinite(best) else "no score so far"
            parts.append(f"val/{name}/{metric} {score:.4f} ({best_text})")
        if parts and trainer.is_global_zero:
            tqdm.write(f"step {trainer.global_step}: {', '.join(parts)}")

    @staticmethod
    def _print(trainer: Trainer, pl_module: Estimator) -> None:
        scores = {name: _scores_of(trainer, name) for name in pl_module.val_dataset_names}
        scores = {name: values for name, values in scores.items() if values}
        if not scores or not trainer.is_global_zero:
            return
        metrics = list(next(iter(scores.values())))
        rows = [("metric", *scores)]
        rows += [(metric, *(f"{values[metric]:.4f}" for values in scores.values())) for metric in metrics]
        headline, constant = pl_module.task.headline_metric, pl_module.task.constant_metric
        if not constant:
            print(f"\n{format_table(rows)}")
            return
        verdict = [("data set", headline, "best constant", "ratio")]
        for name, values in scores.items():
            ratio = values[headline] / values[constant]
            verdict.append((name, f"{values[headline]:.4f}", f"{values[constant]:.4f}", f"{ratio:.3f}"))
        print(f"\n{format_table(rows)}\n\n{format_table(verdict)}")


def describe_lack_of_scores(trainer: Trainer, estimator: Estimator) -> str:
    """Return a sentence on the data sets that were just validated on and have no score; empty if all have one.

    Args:
        trainer: the trainer.
        estimator: what was validated.
    """
    metric = estimator.task.headline_metric
    scores = {name: _scores_of(trainer, name).get(metric, math.nan) for name in estimator.val_dataset_names}
    lacking = ", ".join(name for name, score in scores.items() if math.isnan(score))
    if not lacking:
        return ""
    return (
        f"there is no score of the validation data {lacking}: none of its images could be read and scored, or a "
        "prediction is not finite. See the warnings; mend the data, or leave it out of data.val_datasets."
    )


def _scores_of(trainer: Trainer, dataset: str) -> dict[str, float]:
    prefix = f"val/{dataset}/"
    found = trainer.callback_metrics.items()
    return {name.removeprefix(prefix): float(value) for name, value in found if name.startswith(prefix)}
