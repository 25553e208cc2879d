"""``onestep predict`` with videos, on the tiny model."""

import json

import cv2
import pytest
from PIL import Image

from tests.lightning_modules.inference.runs import make_run, photo, predict
from tests.lightning_modules.inference.video.clips import read_video, rendered, write_frames, write_video

pytest.importorskip("av")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


def test_a_video_beside_a_photo_and_a_folder_as_a_video(run, tmp_path, capsys):
    images, _ = rendered(5)
    file, out = write_video(tmp_path / "ball.mp4", images), tmp_path / "out"
    Image.fromarray(photo()).save(tmp_path / "a.png")
    assert predict(file, tmp_path / "a.png", "--ckpt_path", run, "--output", out) == 0
    said = capsys.readouterr().out
    assert "ball.mp4: 5 frames; flicker" in said and "% before alignment" in said and "1 predicted, 0 failed" in said
    assert (out / "a_depth.npy").is_file() and read_video(out / "ball_depth.mp4")[2].shape == (5, 48, 64, 3)
    assert cv2.imread(str(out / "ball_depth/000005.png"), cv2.IMREAD_UNCHANGED).dtype == "uint16"
    assert predict(file, "--ckpt_path", run, "--output", out) == 0
    assert "were there already" in capsys.readouterr().out
    clip = write_frames(tmp_path / "frames", images)
    assert predict(clip, "--video", "--window", 3, "--fps", 8, "--ckpt_path", run, "--output", out) == 0
    summary = json.loads((out / "frames_depth.json").read_text())
    assert summary["frames"] == 5 and summary["window"] == 3 and summary["frames_per_second"] == 8
    assert predict(clip, "--ckpt_path", run, "--output", tmp_path / "single") == 0
    assert len(list((tmp_path / "single").glob("*.npy"))) == 5, "without --video a folder is one of photos"


def test_normals_of_a_video_are_written_as_they_are(tmp_path, capsys):
    run = make_run(tmp_path / "run", task="Normals")
    file = write_video(tmp_path / "ball.mp4", rendered(3)[0])
    assert predict(file, "--ckpt_path", run, "--output", tmp_path / "out") == 0
    assert "before alignment" not in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "out/ball_normals/000001.png"), cv2.IMREAD_UNCHANGED).shape == (48, 64, 3)


def test_a_broken_video_is_one_line_and_does_not_stop_the_others(run, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    file = write_video(tmp_path / "good.mp4", rendered(2)[0])
    assert predict(tmp_path / "broken.mp4", file, "--ckpt_path", run, "--output", tmp_path / "out") == 1
    captured = capsys.readouterr()
    failed = [line for line in captured.err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1 and "broken.mp4 cannot be read as a video" in failed[0] and "Traceback" not in captured.err
    assert "good.mp4: 2 frames" in captured.out and (tmp_path / "out/good_depth.mp4").is_file()


def test_what_makes_no_sense_is_one_line(run, tmp_path, capsys):
    Image.fromarray(photo()).save(tmp_path / "a.png")
    file = write_video(tmp_path / "a.mp4", rendered(2)[0])
    (tmp_path / "b").mkdir()
    other = write_video(tmp_path / "b/a.mov", rendered(2)[0])
    for message, *words in (
        ("--video takes folders of frames and video files", tmp_path / "a.png", "--video"),
        ("--window concerns videos alone", tmp_path / "a.png", "--window", 3),
        ("--window must lie between 1 and 1000, got 0", file, "--window", 0),
        ("--fps must lie between 0.1 and 1000, got 0", tmp_path / "b", "--video", "--fps", 0),
        ("--uncertainty is of single images", file, "--uncertainty", "flip"),
        ("--mesh is of single images", file, "--mesh"),
        ("would have results of the same name", file, other),
        ("there is no such file", tmp_path / "none.mp4"),
    ):
        status = predict(*words, "--ckpt_path", run, "--output", tmp_path / "out")
        error = capsys.readouterr().err
        assert status in (1, 2) and message in error and error.count("\n") == 1, (message, error)
