import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_modules import Depth, Normals, SingleStepEstimator, StableDiffusion
from lightning_modules.training.callbacks import RunAnnouncement, Throughput, ValidationPanels, ValidationSummary
from tests.helpers.tiny import TinyData, build_base, make_batch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),
]

BARS = 8 + 16  # colours, and what their ends mean


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


class Board(TensorBoardLogger):
    """Keeps images and scalars in memory."""

    def __init__(self):
        super().__init__(save_dir="")
        self.images, self.scalars = [], []

    @property
    def experiment(self):
        return self

    def add_image(self, tag, image, step):
        self.images.append((tag, step, image))

    def log_metrics(self, metrics, step=None):
        self.scalars.append(metrics)

    def log_hyperparams(self, *args, **kwargs):
        pass

    def save(self):
        pass

    def finalize(self, status):
        pass


def run(base, command, callbacks, task=None, data=None, **options):
    board = Board()
    defaults = {"max_steps": 4, "check_val_every_n_epoch": None, "val_check_interval": 2, "log_every_n_steps": 2}
    trainer = Trainer(
        accelerator="cpu",
        logger=board,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        **(defaults | options),
    )
    estimator = SingleStepEstimator(StableDiffusion(str(base)), task or Depth())
    getattr(trainer, command)(estimator, data or TinyData())
    return board, trainer, estimator


class TestValidationPanels:
    @pytest.mark.parametrize("task", [Depth, Normals])
    def test_every_validation_shows_the_same_images_in_the_same_order(self, base, task):
        board, *_ = run(base, "fit", [ValidationPanels(num_images=3)], task())
        tags = [(tag, step) for tag, step, _ in board.images]
        assert tags == [("val/indoor", 2), ("val/outdoor", 2), ("val/indoor", 4), ("val/outdoor", 4)]
        for (_, _, first), (_, _, again) in zip(board.images[:2], board.images[2:], strict=True):
            assert first.shape == again.shape == (3, 3 * (32 + 4) + 4 * 16 + BARS, 4 * 32 + 3 * 4)  # 4 rows of text
            assert torch.equal(first[:, :, :32], again[:, :, :32])  # the image
            assert torch.equal(first[:, :, 72:104], again[:, :, 72:104])  # the ground truth
            assert not torch.equal(first[:, :, 36:68], again[:, :, 36:68])  # the prediction

    def test_a_row_is_image_prediction_truth_and_error(self, base):
        board, _, estimator = run(base, "validate", [ValidationPanels(num_images=1)])
        batch = next(iter(TinyData().val_dataloader()[0]))
        with torch.no_grad():
            images = estimator.task.visualize(estimator(batch.image), batch)
        sheet = board.images[0][2]
        for column, image in enumerate((batch.image / 2 + 0.5, *images)):
            left = column * 36
            assert torch.allclose(sheet[:, 32:64, left : left + 32], image[0], atol=1e-5)

    def test_a_perfect_prediction_looks_like_the_truth_and_has_no_error(self):
        batch = make_batch()
        for task, perfect in (
            (Depth(), -3 * batch.targets["depth"].values + 1),
            (Normals(), batch.targets["normals"].values),
        ):
            shown, truth, error = task.visualize(perfect, batch)
            known = batch.targets["depth"].mask.expand(-1, 3, -1, -1)
            assert torch.allclose(shown[known], truth[known], atol=1e-3)
            assert error[:, 0][batch.targets["depth"].mask[:, 0]].std() < 1e-3
            worse = task.visualize(perfect + 3 * torch.randn_like(perfect), batch)[2]
            assert (worse - error)[known].abs().max() > 0.3

    def test_an_image_without_truth_is_shown_all_the_same(self):
        batch = make_batch()
        batch.targets["depth"].mask[:] = False
        batch.targets["normals"].mask[:] = False
        for task, channels in ((Depth(), 1), (Normals(), 3)):
            for image in task.visualize(torch.rand(2, channels, 32, 32), batch):
                assert image.isfinite().all()
                assert image.shape == (2, 3, 32, 32)

    def test_large_images_are_shrunk_to_keep_the_event_files_small(self, base):
        board, *_ = run(base, "validate", [ValidationPanels(num_images=1, max_width_px=16)])
        assert board.images[0][2].shape == (3, 2 * 16 + 16 + 4 + BARS, 4 * 16 + 3 * 4)  # under titles and key

    def test_zero_images_show_none(self, base):
        assert not run(base, "validate", [ValidationPanels(num_images=0)])[0].images


class TestThroughput:
    def test_the_time_spent_waiting_for_data_is_seen(self, base):
        class SlowData(TinyData):
            def train_dataloader(self):
                return Slow(super().train_dataloader())

        class Slow:
            def __init__(self, loader):
                self.loader = loader

            def __len__(self):
                return len(self.loader)

            def __iter__(self):
                for batch in self.loader:
                    time.sleep(0.5)
                    yield batch

        board, *_ = run(base, "fit", [Throughput()], data=SlowData())
        logged = [scalars for scalars in board.scalars if "train/images_per_s" in scalars]
        assert len(logged) == 2  # every 2 of 4 steps
        for scalars in logged:
            assert 0.2 < scalars["train/data_wait_share"] < 1
            assert 0 < scalars["train/images_per_s"] < 4  # 2 images in at least half a second

    def test_validation_does_not_count_as_waiting(self, base, monkeypatch):
        def slow_validation(self, *args):
            time.sleep(1.0)

        monkeypatch.setattr(SingleStepEstimator, "on_validation_epoch_start", slow_validation)
        board, *_ = run(base, "fit", [Throughput()], val_check_interval=1)
        shares = [scalars["train/data_wait_share"] for scalars in board.scalars if "train/data_wait_share" in scalars]
        assert max(shares) < 0.5

    def test_short_epochs_and_accumulation_are_counted_in_steps(self, base):
        board, *_ = run(base, "fit", [Throughput()], data=TinyData(num_batches=3), accumulate_grad_batches=3)
        assert len([scalars for scalars in board.scalars if "train/images_per_s" in scalars]) == 2


def test_the_start_says_how_many_images_make_a_step(base, caplog):
    with caplog.at_level("INFO"):
        run(base, "fit", [RunAnnouncement(Path("runs/tiny/version_3"))], accumulate_grad_batches=2, max_steps=2)
    assert caplog.text.count("2 images x 2 accumulated x 1 ranks = 4 images per step") == 1
    assert "files in runs/tiny/version_3" in caplog.text


class TestValidationSummary:
    def test_the_closing_table_holds_every_data_set_beside_the_best_constant(self, base, capsys):
        _, trainer, _ = run(base, "validate", [ValidationSummary()])
        table = capsys.readouterr().out
        for name in ("indoor", "outdoor"):
            value = trainer.callback_metrics[f"val/{name}/abs_rel"].item()
            constant = trainer.callback_metrics[f"val/{name}/abs_rel_constant"].item()
            row = next(line.split() for line in table.splitlines() if line.startswith(name))
            assert row == [name, f"{value:.4f}", f"{constant:.4f}", f"{value / constant:.3f}"]

    def test_a_fit_that_ends_between_two_validations_shows_no_stale_table(self, base, capsys):
        run(base, "fit", [ValidationSummary()], max_steps=3)
        assert "best constant" not in capsys.readouterr().out
        run(base, "fit", [ValidationSummary()], max_steps=4)
        assert capsys.readouterr().out.count("best constant") == 1
