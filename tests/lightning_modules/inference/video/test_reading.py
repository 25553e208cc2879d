"""Videos that are good, turned, broken, or something else by the name of a video."""

import numpy as np
import pytest

from geometry.errors import InputError
from lightning_modules.inference.video import reading
from lightning_modules.inference.video.reading import open_clip
from tests.lightning_modules.inference.video.clips import rendered, write_frames, write_video

pytest.importorskip("av")


def frames_of(path):
    with open_clip(path, 25) as clip:
        return clip.rate, [frame.image for frame in clip.frames]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "avi"])
def test_the_frames_of_a_file_are_those_that_were_written(tmp_path, ending):
    images, _ = rendered(5)
    rate, found = frames_of(write_video(tmp_path / f"a.{ending}", images, rate=30))
    assert rate == 30 and len(found) == 5
    assert np.abs(np.stack(found).astype(int) - images).max() <= 3


def test_frames_of_a_phone_are_turned_upright(tmp_path):
    images, _ = rendered(2)
    _, (found, _) = frames_of(write_video(tmp_path / "a.mp4", images, rotation=90))
    assert found.shape == (64, 48, 3)
    assert np.abs(found.astype(int) - np.rot90(images[0], 1)).max() <= 3


def test_a_folder_is_read_in_the_order_of_its_names_without_what_systems_leave(tmp_path):
    images, _ = rendered(12)
    clip = write_frames(tmp_path / "clip", images)
    (clip / "._frame_000.png").write_bytes(b"\0\5\26\7")
    (clip / "notes.txt").write_text("no frame")
    rate, found = frames_of(clip)
    assert rate == 25 and np.array_equal(np.stack(found), images)


def test_what_is_no_video_or_is_broken_is_one_line(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", rendered(30)[0]).read_bytes()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "nothing").mkdir()
    for name in ("empty.mp4", "noise.mp4", "cut.mp4", "absent.mp4", "nothing"):
        with pytest.raises(InputError, match=name) as error:
            frames_of(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_damaged_middle_is_refused_and_not_shown_as_grey(tmp_path):
    data = bytearray(
        write_video(tmp_path / "a.mp4", np.random.default_rng(0).integers(0, 255, (8, 48, 64, 3), "u1")).read_bytes()
    )
    start = data.index(b"mdat") + len(data) // 2
    data[start : start + 900] = bytes(900)
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.mp4"):
        frames_of(tmp_path / "a.mp4")


def test_a_playlist_by_the_name_of_a_video_opens_no_other_file(tmp_path):
    write_video(tmp_path / "secret.ts", rendered(5)[0])
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\n{tmp_path / 'secret.ts'}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.mp4").write_text(text)
    (tmp_path / "joined.mp4").write_text(f"ffconcat version 1.0\nfile '{tmp_path / 'secret.ts'}'\n")
    for name in ("list.mp4", "joined.mp4"):
        with pytest.raises(InputError, match="cannot be read as a video"):
            frames_of(tmp_path / name)


def test_a_video_that_is_too_long_or_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    images, _ = rendered(6)
    file, folder = write_video(tmp_path / "a.mp4", images), write_frames(tmp_path / "clip", images)
    monkeypatch.setattr(reading, "MAX_VIDEO_FRAMES", 5)
    for path in (file, folder):
        with pytest.raises(InputError, match="more than 5 frames; cut it"):
            frames_of(path)
    monkeypatch.setattr(reading, "MAX_VIDEO_FRAME_PIXELS", 1000)
    for path in (file, folder):
        with pytest.raises(InputError, match=r"megapixels|cut it"):
            frames_of(path)
