"""Videos predicted frame by frame: one scale and shift over time, and a flicker figure that is right."""

import csv
import json

import cv2
import numpy as np
import pytest

from geometry.errors import InputError
from geometry.modalities import Depth
from lightning_modules.inference.video.run import VideoRun
from tests.lightning_modules.inference.video.clips import (
    SIZE,
    KnowsDepth,
    read_video,
    rendered,
    write_frames,
    write_video,
)

pytest.importorskip("av")


def video_run(predictor, output, window=5, overwrite=False):
    return VideoRun(predictor, output, window, batch_size=4, fps=10, overwrite=overwrite)


def frames_of(folder):
    return np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) / 65535 for file in sorted(folder.glob("*.png"))])


def up_to_scale_and_shift(found, truth):
    """Largest difference after one scale and one shift for all frames."""
    slope, offset = np.polyfit(found.ravel(), truth.ravel(), 1)
    return np.abs(slope * found + offset - truth).max()


def test_frames_with_a_scale_and_shift_of_their_own_are_brought_back_exactly_and_do_not_flicker(tmp_path):
    images, depths = rendered(24)
    summary = video_run(KnowsDepth(depths), tmp_path / "out").predict(write_frames(tmp_path / "clip", images), False)
    assert summary.frames == 24 and summary.flicker < 1e-5 and summary.flicker_unaligned > 0.05
    found = frames_of(tmp_path / "out/clip_depth")
    assert found.min() == 0 and found.max() == 1, "the range of the whole video"
    assert up_to_scale_and_shift(found, depths) < 1e-4, "beyond rounding to 16 bits"
    assert json.loads((tmp_path / "out/clip_depth.json").read_text())["flicker"] == summary.flicker
    assert not [file for file in (tmp_path / "out").iterdir() if file.name.startswith(".")]


def test_a_flicker_that_is_known_is_measured(tmp_path):
    """Frames alternate by a bump of known size in a tenth of the pixels, which stand still."""
    images, depths = rendered(12, moves=False)
    bump = np.zeros(SIZE)
    bump[:, -7:] = 0.08
    depths = depths + np.where(np.arange(12) % 2, 1, 0)[:, None, None] * bump
    summary = video_run(KnowsDepth(depths), tmp_path / "out").predict(write_frames(tmp_path / "clip", images), False)
    expected = bump.mean() / (depths.max() - depths.min())
    assert summary.flicker == pytest.approx(expected, rel=0.01)


def test_what_moves_is_no_flicker(tmp_path):
    images, depths = rendered(12)
    steady = video_run(KnowsDepth(depths, varies=False), tmp_path / "out")
    assert steady.predict(write_frames(tmp_path / "clip", images), False).flicker < 1e-6
    images = np.random.default_rng(0).integers(0, 255, (6, *SIZE, 3), dtype=np.uint8)
    depths = np.random.default_rng(1).random((6, *SIZE))
    moving = video_run(KnowsDepth(depths), tmp_path / "out2").predict(write_frames(tmp_path / "clip2", images), False)
    assert moving.flicker is None or moving.flicker > 0  # hardly a pixel stands still by chance
    images = np.stack([np.full((*SIZE, 3), 20 * number, np.uint8) for number in range(6)])
    nothing = video_run(KnowsDepth(depths), tmp_path / "out3").predict(write_frames(tmp_path / "clip3", images), False)
    assert nothing.flicker is None and "no pixel stands still" in nothing.sentence()


def test_noise_does_not_shrink_a_long_video_to_nothing(tmp_path):
    images, depths = rendered(80, (16, 24), moves=False)
    video_run(KnowsDepth(depths, noise=0.05), tmp_path / "out").predict(write_frames(tmp_path / "clip", images), False)
    table = list(csv.DictReader((tmp_path / "out/clip_depth.csv").open()))
    found = frames_of(tmp_path / "out/clip_depth")
    first, last = found[:10].std(), found[-10:].std()
    assert len(table) == 80 and last == pytest.approx(first, rel=0.15), "least squares would leave a fraction"


def test_a_video_file_becomes_a_video_of_h264_of_its_rate_and_16_bit_frames(tmp_path):
    images, depths = rendered(8, (47, 63))
    file = write_video(tmp_path / "clip.mp4", images, rate=12)
    summary = video_run(KnowsDepth(depths), tmp_path / "out").predict(file, False)
    assert summary.frames == 8 and summary.frames_per_second == 12 and summary.flicker < 1e-5
    codec, rate, colors = read_video(tmp_path / "out/clip_depth.mp4")
    assert codec == "h264" and rate == 12 and colors.shape == (8, 48, 64, 3), "odd sides get a row and a column"
    assert frames_of(tmp_path / "out/clip_depth").shape == (8, 47, 63)
    # The ball is near, hence bright and warm; the wall's far end dark and blue.
    ball, far = colors[0, 28:32, 6:10].reshape(-1, 3).mean(0), colors[0, 20:40, 58:62].reshape(-1, 3).mean(0)
    assert ball.min() > 150 and far[2] > far[0] and far.mean() < 80


def test_a_single_frame_is_a_video(tmp_path):
    images, depths = rendered(1)
    summary = video_run(KnowsDepth(depths), tmp_path / "out").predict(write_frames(tmp_path / "clip", images), False)
    assert summary.frames == 1 and summary.flicker is None
    assert up_to_scale_and_shift(frames_of(tmp_path / "out/clip_depth"), depths) < 1e-4
    file = write_video(tmp_path / "one.mp4", images)
    assert video_run(KnowsDepth(depths), tmp_path / "out").predict(file, False).frames == 1


def test_a_video_that_is_not_linear_in_depth_is_aligned_where_it_is_predicted(tmp_path):
    images, depths = rendered(10)
    modality = Depth("log")
    predictor = KnowsDepth(depths)
    predictor.modality = modality
    import torch

    predictor.predictions = iter([modality.from_affine(torch.from_numpy(p)).numpy() for p in predictor.predictions])
    summary = video_run(predictor, tmp_path / "out").predict(write_frames(tmp_path / "clip", images), False)
    assert summary.flicker < 1e-5
    found = modality.to_affine(torch.from_numpy(frames_of(tmp_path / "out/clip_depth"))).numpy()
    assert up_to_scale_and_shift(found, depths) < 1e-3


def test_results_that_are_there_stay_and_old_frames_of_a_longer_video_go(tmp_path):
    images, depths = rendered(6)
    clip = write_frames(tmp_path / "clip", images)
    assert video_run(KnowsDepth(depths), tmp_path / "out").predict(clip, False).frames == 6
    assert video_run(KnowsDepth(depths), tmp_path / "out").predict(clip, False) is None
    (clip / "frame_005.png").unlink()
    again = video_run(KnowsDepth(depths), tmp_path / "out", overwrite=True).predict(clip, False)
    assert again.frames == 5 and len(list((tmp_path / "out/clip_depth").glob("*.png"))) == 5


def test_frames_of_several_sizes_are_refused_and_nothing_is_left(tmp_path):
    images, depths = rendered(3)
    clip = write_frames(tmp_path / "clip", images)
    write_frames(tmp_path / "other", rendered(1, (40, 30))[0])
    (tmp_path / "other/frame_000.png").rename(clip / "frame_009.png")
    with pytest.raises(InputError, match=r"frame 000004 of .*clip has 30x40 pixels, those before it 64x48"):
        video_run(KnowsDepth(depths), tmp_path / "out").predict(clip, False)
    assert not list((tmp_path / "out").iterdir())
