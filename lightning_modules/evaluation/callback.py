"""Scores what ``test`` predicts, data set by data set, and writes the results."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from tqdm import tqdm

from geometry.batch import GeometryBatch
from geometry.contract import TestData, test_data
from geometry.errors import InputError
from geometry.files.paths import given_path
from lightning_modules.estimator import Estimator
from lightning_modules.evaluation.calibration_figure import calibration_figure
from lightning_modules.evaluation.files import make_writable, save_array, write_file
from lightning_modules.evaluation.identity import digest, file_stamp, prediction_settings, weights_digest
from lightning_modules.evaluation.place import free_folder
from lightning_modules.evaluation.provenance import provenance
from lightning_modules.evaluation.report import write_results
from lightning_modules.evaluation.scores import DatasetScores, read_scores, write_scores
from lightning_modules.evaluation.scoring import Scorer, Tally
from lightning_modules.evaluation.tables import screen_table
from lightning_modules.evaluation.visualisations import paint_sample
from lightning_modules.inference.results import png_bytes
from lightning_modules.metrics.benchmarks.choice import DEFAULT_PROTOCOLS, MetricChoice
from lightning_modules.training.loggers import show_image
from lightning_modules.training.run_lock import RunLock
from lightning_modules.uncertainty.spread import Uncertainty, UncertaintyBy


class Evaluation(Callback):
    """Scores test data sets and writes tables, visualisations and files. A data set that is finished is not run again.

    Args:
        output: Folder of the results; None is runs/NAME/test, or test_2 and so on where that holds results of other
            weights, settings or samples.
        protocols: How depth is brought to the truth, each with figures of its own from the same predictions:
            least_squares (in depth, as in the tables until 2025), ransac_log (robust, in log depth, as in those of
            2026), least_squares_disparity, median, metric (predictions in metres). The task's own metric is always
            least_squares.
        metrics: Further metrics for every dataset: soft_edges, boundary_f1, and where a benchmark has what they need,
            boundary_error, planarity, boundary_recall, ordinal. Those that depend on a protocol take the first one.
        save_predictions: Keep the predictions as arrays in the folder predictions, to score them again without the
            model (see lightning_modules.SavedPredictions), each with its visualisation, which compare shows.
        uncertainty: Measure whether predictions are wrong where they are unsure, by several predictions of each image:
            flip (the image mirrored), views (also shifted, smaller and larger) or ensemble (different noise). Adds
            ause, ause_chance and error_over_spread, curves and a table to the results.
        ensemble_members: Predictions that uncertainty by ensemble compares.
        num_images: Show so many of the worst and so many of the median samples of each data set.
        restart: Score data sets again whose scores the folder already holds.
        num_pictures: Former name of num_images.
    """

    def __init__(
        self,
        output: str | None = None,
        protocols: list[str] | None = None,
        metrics: list[str] | None = None,
        save_predictions: bool = False,
        num_images: int = 3,
        restart: bool = False,
        uncertainty: UncertaintyBy | None = None,
        ensemble_members: int = 10,
        num_pictures: int | None = None,
    ) -> None:
        if num_pictures is not None:
            rank_zero_warn("evaluation.num_pictures is evaluation.num_images now.", stacklevel=2)
            num_images = num_pictures
        if num_images < 0:
            raise InputError(f"evaluation.num_images must be at least 0, not {num_images}.")
        self.folder = given_path("runs/test" if output is None else output, "evaluation.output")
        self.has_folder = output is not None
        self.save_predictions, self.num_images, self.restart = save_predictions, num_images, restart
        self.choice = MetricChoice(tuple(DEFAULT_PROTOCOLS if protocols is None else protocols), tuple(metrics or ()))
        self.uncertainty = None if uncertainty is None else Uncertainty(uncertainty, ensemble_members)
        self.settings: dict[str, Any] = {}
        self._record: dict[str, Any] = {}
        self._checkpoint: dict[str, Any] | None = None
        self._identities: dict[str, str] = {}
        self._results: dict[str, DatasetScores] = {}
        self._to_run: list[str] = []
        self._num_finished = 0
        self._lock = RunLock()
        self._forget()

    def setup(self, trainer: Trainer, pl_module: Estimator, stage: str) -> None:  # type: ignore[override]
        """Find out which data sets are finished already.

        Raises:
            InputError: the data module has nothing to test on, or a protocol or metric is unknown.
        """
        if stage != "test":
            return
        self.choice.check(pl_module.task.modality.name)
        pl_module.measure_spread_by(self.uncertainty)
        data = test_data(_data(trainer))
        names = _names(data)
        if not names:
            raise InputError(f"{type(data).__name__} has no data set to test on. Give --data datamodules.Benchmarks.")
        run: dict[str, Any] = {"precision": str(trainer.precision), "limit": str(trainer.limit_test_batches)}
        run |= {"protocols": list(self.choice.protocols), "metrics": list(self.choice.metrics)}
        run |= {} if self.uncertainty is None else {"uncertainty": asdict(self.uncertainty)}
        model = digest({"weights": weights_digest(pl_module), **run, **self.settings})
        self._identities = {name: f"{model}-{digest(data.describe_test(name))}" for name in names}
        self._take_folder(trainer)
        self._results = self._read_finished(model)
        self._to_run = [name for name in names if name not in self._results]
        self._num_finished = 0
        data.skip_tests(self._results.keys() & set(names))
        if trainer.is_global_zero:
            self._remove_old_visualisations()
        if trainer.is_global_zero and self._results:
            print(f"already scored in {self.folder}: {', '.join(self._results)} (--evaluation.restart scores again)")
            if not self._to_run:
                self._write_results(trainer, data, pl_module.task.headline_metric)
                print(screen_table(pl_module.task.headline_metric, self._in_order(data)))

    def _take_folder(self, trainer: Trainer) -> None:
        """Find the folder, which the first rank decides, log there by default, and let no other test write there."""
        if not self.has_folder:
            self.folder = Path(trainer.strategy.broadcast(str(free_folder(self.folder, self._identities))))
        if self.settings and not trainer.loggers:
            trainer.loggers = [TensorBoardLogger(str(self.folder), "", "", default_hp_metric=False)]
        self._lock.take_on_all(trainer, self.folder)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Estimator, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Note what the checkpoint says of itself."""
        self._checkpoint = checkpoint

    def on_test_start(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Note how the results are made."""
        if self.settings:
            self._record = provenance(trainer, self._checkpoint)
        self._checkpoint = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: object) -> None:
        """Give the folder back."""
        self._lock.release()

    on_exception = teardown  # type: ignore[assignment]

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: Estimator,
        outputs: dict[str, Tensor],
        batch: GeometryBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the samples of a batch."""
        while self._num_finished < dataloader_idx:
            self._finish(trainer, pl_module)
        name = self._to_run[dataloader_idx]
        scorer = self._scorer(trainer, pl_module, name)
        for index, key in enumerate(batch.key):
            prediction, sample = outputs["prediction"][index : index + 1], batch[index : index + 1]
            spread = outputs["spread"][index : index + 1] if "spread" in outputs else None
            is_scored = scorer.score(self._tally, prediction, sample, spread)
            if is_scored and (self.num_images or self.save_predictions):
                self._paintings[key] = paint_sample(pl_module.task, prediction, sample)
            if self.save_predictions:
                if is_scored:
                    write_file(self.folder / "predictions" / name / f"{key}.jpg", self._paintings[key])
                array = prediction[0].float().cpu().numpy()
                save_array(self.folder / "predictions" / name / f"{key}.npy", array)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Finish what is left, and print all metrics."""
        while self._num_finished < len(self._to_run):
            self._finish(trainer, pl_module)
        if trainer.is_global_zero:
            table = screen_table(pl_module.task.headline_metric, self._in_order(_data(trainer)))
            tqdm.write(f"\n{table}\n\nresults in {self.folder}")

    def _finish(self, trainer: Trainer, pl_module: Estimator) -> None:
        """Bring the ranks' results on a data set together, and write them."""
        name, data, task = self._to_run[self._num_finished], _data(trainer), pl_module.task
        self._tally.problems |= data.test_problems(name)
        tally = self._tally.gathered()
        scorer = self._scorer(trainer, pl_module, name)
        self._num_finished += 1
        result = DatasetScores(
            name,
            self._identities[name],
            scorer.overall(tally),
            len(tally.rows),
            scorer.dataset.num_published,
            tally.problems,
            scorer.calibration(tally),
        )
        self._results[name] = result
        self._write_visualisations(name, tally, scorer.headline)
        self._forget()
        if trainer.is_global_zero:
            write_scores(self.folder / name, result, tally.rows)
            self._write_results(trainer, data, task.headline_metric)
            self._log(trainer, result)
            headline = f"{scorer.headline} {result.scores[scorer.headline]:.4f}"
            remarks = f" ({result.remarks()})" if result.remarks() else ""
            images = "1 image" if result.num_images == 1 else f"{result.num_images} images"
            tqdm.write(f"{name}: {headline} on {images}{remarks}")

    def _scorer(self, trainer: Trainer, pl_module: Estimator, name: str) -> Scorer:
        dataset = next(info for info in _data(trainer).test_dataset_infos if info.name == name)
        return Scorer(pl_module.task, dataset, self.choice, self.uncertainty is not None)

    def _write_results(self, trainer: Trainer, data: TestData, headline: str) -> None:
        if self.settings and not self._record:  # all was finished already: nothing has started
            self._record = provenance(trainer, None)
        settings = {**self.settings, **self._record}
        write_results(self.folder, settings, headline, self._in_order(data), dict(data.missing_tests))

    def _write_visualisations(self, name: str, tally: Tally, headline: str) -> None:
        """Write those of the worst and the median samples that this rank painted."""
        ranked = sorted(tally.rows, key=lambda key: (-tally.rows[key][headline], key))
        first = max(0, (len(ranked) - self.num_images) // 2)
        chosen = {"worst": ranked[: self.num_images], "median": ranked[first : first + self.num_images]}
        for kind, keys in chosen.items():
            for number, key in enumerate(keys, start=1):
                if key in self._paintings:
                    write_file(self.folder / name / f"{kind}_{number}_{key}.jpg", self._paintings[key])

    def _log(self, trainer: Trainer, result: DatasetScores) -> None:
        """Send the scores to the loggers."""
        values = {f"test/{result.name}/{metric}": value for metric, value in result.scores.items()}
        figure = None if result.calibration is None else calibration_figure(result.calibration)
        if figure is not None:
            write_file(self.folder / result.name / "calibration.png", png_bytes(figure))
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
            if figure is not None:
                pixels = torch.from_numpy(figure).movedim(-1, 0) / 255
                show_image(logger, f"test/{result.name}/calibration", pixels, trainer.global_step)
            logger.save()

    def _in_order(self, data: TestData) -> list[DatasetScores]:
        names = _names(data)
        others = sorted(self._results.keys() - set(names))
        return [self._results[name] for name in [*names, *others] if name in self._results]

    def _read_finished(self, model: str) -> dict[str, DatasetScores]:
        """Return the scores in the folder that still hold: of these data sets, or of others and the same model."""
        found = (read_scores(path.parent) for path in sorted(self.folder.glob("*/scores.json")))
        return {
            scores.name: scores
            for scores in found
            if scores is not None
            and scores.identity == self._identities.get(scores.name, scores.identity)
            and scores.identity.startswith(f"{model}-")
            and not (scores.name in self._identities and self._is_wanted_again(scores.name))
        }

    def _is_wanted_again(self, name: str) -> bool:
        return self.restart or (self.save_predictions and not (self.folder / "predictions" / name).is_dir())

    def _remove_old_visualisations(self) -> None:
        for name in self._to_run:
            for kind in ("worst", "median"):
                for path in (self.folder / name).glob(f"{kind}_*.jpg"):
                    path.unlink()

    def _forget(self) -> None:
        self._tally = Tally()
        self._paintings: dict[str, bytes] = {}


def begin_evaluation(trainer: Trainer, name: str, model: dict[str, Any], checkpoint: str | None) -> None:
    """Tell the evaluation among a trainer's callbacks what it evaluates.

    Args:
        trainer: the trainer.
        name: name of the run.
        model: class_path and init_args of the model, as configured.
        checkpoint: path of the checkpoint; None for the weights that the model is built with.

    Raises:
        InputError: the folder of the results cannot be made or written to.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Evaluation):
            if not callback.has_folder:
                callback.folder = Path(trainer.default_root_dir) / name / "test"
            make_writable(callback.folder)
            callback.settings = {
                "checkpoint": checkpoint,
                "checkpoint_file": file_stamp(checkpoint),
                "model": prediction_settings(model),
            }


def _data(trainer: Trainer) -> TestData:
    return trainer.datamodule  # type: ignore[attr-defined]


def _names(data: TestData) -> list[str]:
    return [dataset.name for dataset in data.test_dataset_infos]
