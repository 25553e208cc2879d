"""TensorBoard: settings and scores of runs side by side, no card for epochs, titles in panels, no empty runs."""

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from lightning_modules import Depth, Normals
from lightning_modules.training.labels import _fitting, colour_bars, panel_titles, title_band
from tests.helpers.runs import fit, prepare


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    config = prepare(folder, max_steps=2)
    assert fit(folder / "runs", config, "--panels.num_images=2", "--trainer.val_check_interval=3") == [0]
    return folder


def events(runs):
    return EventAccumulator(str(runs / "runs/tiny/version_0"), {"scalars": 0, "images": 0, "tensors": 0}).Reload()


def test_settings_and_scores_fill_the_tab_that_compares_runs(runs):
    content = events(runs).SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["trainer.max_steps"].number_value == 2
    assert start.hparams["model.task.class_path"].string_value == "lightning_modules.Depth"
    content = events(runs).SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    scores = {info.name.tag for info in experiment.metric_infos}
    assert scores == {"val/a/abs_rel", "val/b/abs_rel"} <= set(events(runs).Tags()["scalars"])


def test_the_count_of_epochs_is_no_card(runs):
    assert "epoch" not in events(runs).Tags()["scalars"]


def test_panels_have_titles_and_keys_above_their_rows(runs, tmp_path):
    image = events(runs).Images("val/a")[0]
    (tmp_path / "panel.png").write_bytes(image.encoded_image_string)
    pixels = np.asarray(Image.open(tmp_path / "panel.png").convert("RGB"))
    row = 16 + 4  # an image of planes, and a gap
    bars = 8 + 16
    assert pixels.shape[0] == 16 + 2 * (16 + row) + bars
    for top in (0, 16, 16 + 16 + row):
        band = pixels[top : top + 16]
        assert (band.min(axis=2) < 100).any() and (band == 255).all(axis=2).mean() > 0.5
    titles = panel_titles([Depth().modality])
    assert [title.split()[0] for title in titles] == ["image", "depth", "depth", "error"]
    # Columns of the demo are 96 pixels wide: the range of the error is not cut off there, nor in the middle.
    assert _fitting(titles[3], 14) == f"error 0..{Depth().modality.worst_error:g}"
    assert title_band(titles, 200).shape == (3, 16, 800)


def test_a_colour_bar_below_says_which_colour_is_near_and_which_error_is_large():
    band = (255 * colour_bars([Depth().modality], 96, 4)).round().int()
    assert band.shape == (3, 24, 4 * 96)
    ends = [[band[:, 0, column * 96 + at].tolist() for at in (0, 91)] for column in range(4)]
    near, far = [255, 244, 199], [0, 23, 56]  # what geometry.colorize says of depth
    assert ends[0] == [[255] * 3] * 2 and ends[1] == ends[2] == [near, far]
    assert ends[3] == [[249, 246, 239], [122, 9, 30]]
    written = (band[:, 8:].amin(dim=0) < 128).any(dim=0)
    assert not written[:96].any() and all(written[at : at + 20].any() for at in (96, 96 + 72, 288, 288 + 72))
    plain = (255 * colour_bars([Normals().modality], 96, 4)).round().int()
    assert (plain[:, :8, : 3 * 96] == 255).all() and (plain[:, 0, 3 * 96] < 255).any()


def test_a_run_that_ends_before_its_first_step_leaves_no_empty_version(runs, tmp_path):
    options = ["--trainer.callbacks+=tests.lightning_modules.training.test_run_tensorboard.Failure"]
    assert fit(tmp_path / "runs", runs / "config.yaml", *options) != [0]
    assert not list((tmp_path / "runs").rglob("version_*"))


from lightning.pytorch import Callback  # noqa: E402 - the class below is named on the command line


class Failure(Callback):
    """Fails before the first step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        raise RuntimeError("on purpose")
