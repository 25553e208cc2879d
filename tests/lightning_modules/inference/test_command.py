"""python train.py predict: a folder of odd images, names, places."""

import io
import os
import resource

import cv2
import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from geometry.errors import InputError
from geometry.files.locks import sole_use
from lightning_modules.inference import Predictor
from lightning_modules.inference.image_inputs import read_image
from tests.lightning_modules.inference.runs import make_run, photo, predict

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("depth"))


@pytest.fixture(scope="module")
def normals_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("normals"), task="Normals")


def save(folder, name, image=None, mode=None, **options):
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(photo() if image is None else image)
    (image.convert(mode) if mode else image).save(folder / name, **options)


def rotated(degrees_flag):
    exif = Image.Exif()
    exif[0x0112] = degrees_flag
    return exif


def fill_with_good(folder):
    """Write images that must be predicted; return (height, width) by stem of the results."""
    image = photo(20, 30)
    grey16 = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    for name in ("plain.jpg", "plain.png", "web.webp", "tiff.tif", "bitmap.bmp", "UPPER.JPG", "no_space left.png"):
        save(folder, name, image)
    modes = {"grey.png": "L", "cmyk.jpg": "CMYK", "cmyk.tif": "CMYK", "palette.png": "P", "onebit.png": "1"}
    modes |= {"lab.tif": "LAB", "clear.png": "RGBA", "greyclear.png": "LA"}
    for name, mode in modes.items():
        save(folder, name, image, mode)
    save(folder, "palette_clear.gif", image, "P", transparency=0)
    save(folder, "palette_clear_png.png", image, "P", transparency=0)
    Image.fromarray(grey16).save(folder / "grey16.png")
    Image.fromarray(grey16).save(folder / "grey16.tif")
    Image.fromarray(grey16.astype(np.int32)).save(folder / "grey32.tif")
    Image.fromarray(grey16.astype(np.float32) / 65535).save(folder / "float.tif")
    cv2.imwrite(str(folder / "color16.png"), cv2.cvtColor(grey16, cv2.COLOR_GRAY2BGR))
    cv2.imwrite(str(folder / "color16.tif"), cv2.cvtColor(grey16, cv2.COLOR_GRAY2BGR))
    frames = [Image.fromarray(photo(20, 30, seed)) for seed in range(3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    for flag in (3, 6, 8):
        save(folder, f"turned{flag}.jpg", image, exif=rotated(flag))
    save(folder, "one.png", image[:1, :1])
    save(folder, "row.png", np.repeat(image[:1, :1], 5000, axis=1))
    save(folder, "column.png", np.repeat(image[:1, :1], 5000, axis=0))
    save(folder, "日本語 ünï.png", image)
    save(folder, "n" * 250 + ".png", image)
    save(folder, ".hidden.png", image)
    save(folder / "sub", "plain.png", image)
    os.symlink(folder / "plain.png", folder / "link.png")
    save(folder, "luma.tif", image, "YCbCr", compression="tiff_lzw")
    save(folder, "broken_exif.png", image, exif=b"Exif\0\0no table of tags")
    # A file is judged by its content, not by its name.
    (folder / "misnamed.png").write_bytes((folder / "plain.jpg").read_bytes())


def fill_with_bad(folder):
    jpeg = io.BytesIO()
    Image.fromarray(photo(200, 300)).save(jpeg, "JPEG")
    png = io.BytesIO()
    Image.fromarray(photo(200, 300)).save(png, "PNG")
    contents = {
        "bad_empty.jpg": b"",
        "bad_text.png": b"this is text, not an image\n" * 10,
        "bad_truncated.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "bad_truncated.png": png.getvalue()[: len(png.getvalue()) // 2],
        "bad_head.jpg": jpeg.getvalue()[:20],
        # A header that promises 60,000 x 60,000 pixels must not fill the memory.
        "bad_bomb.pgm": b"P5 60000 60000 255\n" + bytes(100),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    os.symlink(folder / "bad_loop_b.png", folder / "bad_loop_a.png")
    os.symlink(folder / "bad_loop_a.png", folder / "bad_loop_b.png")
    os.symlink(folder / "nowhere.png", folder / "bad_dangling.png")
    os.mkfifo(folder / "bad_pipe.png")  # to open it would be to wait for ever
    os.symlink(folder, folder / "sub/loop", target_is_directory=True)
    return 10


def may_read_everything():
    """Root reads files that nobody may read."""
    return os.geteuid() == 0


class TestOddImages:
    @pytest.fixture(scope="class")
    def outcome(self, run, tmp_path_factory):
        folder, output = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("out")
        fill_with_good(folder)
        good = sum(len(files) for _, _, files in os.walk(folder))
        bad = fill_with_bad(folder)
        save(folder, "bad_unreadable.png")
        (folder / "bad_unreadable.png").chmod(0)
        good, bad = (good + 1, bad) if may_read_everything() else (good, bad + 1)
        (folder / "notes.txt").write_text("no image, and not named like one")
        import contextlib

        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            status = predict(folder, "--ckpt_path", run, "--output", output)
        return folder, output, good, bad, status, error.getvalue()

    def test_good_ones_are_predicted_and_bad_ones_listed(self, outcome):
        _, output, good, bad, status, error = outcome
        assert good + bad >= 40
        arrays = list(output.rglob("*_depth.npy"))
        assert status == 1
        assert len(arrays) == good, error
        failed = [line for line in error.splitlines() if line.startswith("failed: ")]
        assert len(failed) == bad and all("bad_" in line for line in failed), error
        assert "Traceback" not in error
        assert len([file for file in output.rglob("*") if file.is_file()]) == 3 * good

    def test_every_result_has_the_size_at_which_people_see_the_image(self, outcome):
        output = outcome[1]
        shapes = {file.name.removesuffix("_depth.npy"): np.load(file).shape for file in output.glob("*.npy")}
        assert shapes["turned6"] == shapes["turned8"] == (30, 20)
        assert shapes["turned3"] == shapes["web"] == shapes["color16_tif"] == (20, 30)
        assert shapes["one"] == (1, 1)
        assert shapes["row"] == (1, 5000)
        assert shapes["column"] == (5000, 1)

    def test_images_of_one_stem_do_not_overwrite_one_another(self, outcome):
        names = {file.name for file in outcome[1].glob("*_depth.npy")}
        assert {"plain_jpg_depth.npy", "plain_png_depth.npy", "cmyk_jpg_depth.npy", "cmyk_tif_depth.npy"} <= names
        assert (outcome[1] / "sub/plain_depth.npy").is_file()

    def test_the_same_content_gives_the_same_depth_however_it_is_stored(self, outcome):
        load = lambda stem: np.load(outcome[1] / f"{stem}_depth.npy")  # noqa: E731
        for stem in ("tiff", "bitmap", "clear", "link"):
            assert np.abs(load(stem) - load("plain_png")).max() < 1e-5, stem
        assert np.abs(load("grey16_png") - load("grey16_tif")).max() < 1e-5
        assert np.abs(load("grey16_png") - load("float")).max() < 1e-3
        assert np.abs(load("grey16_png") - load("color16_png")).max() < 0.02
        assert np.abs(load("turned3")[::-1, ::-1] - load("plain_jpg")).mean() > 1e-4, "it is predicted upright"


def test_an_image_that_may_not_be_read_is_named(tmp_path):
    save(tmp_path, "secret.png")
    (tmp_path / "secret.png").chmod(0)
    user = os.geteuid()
    try:
        if may_read_everything():
            os.seteuid(65534)
        with pytest.raises(InputError, match=r"secret.png cannot be read: Permission denied"):
            read_image(tmp_path / "secret.png")
    finally:
        os.seteuid(user)


def test_a_damaged_jpeg_is_listed_as_failed_and_not_predicted_from_grey_blocks(run, tmp_path, capsys):
    save(tmp_path, "whole.jpg", photo(96, 128), quality=95)
    data = bytearray((tmp_path / "whole.jpg").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 512] = bytes(512)
    (tmp_path / "bad.jpg").write_bytes(data)
    assert predict(tmp_path, "--ckpt_path", run, "--output", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "bad.jpg is a damaged JPEG" in captured.err and "1 predicted, 1 failed" in captured.out


def test_what_macos_puts_beside_images_is_passed_over(run, tmp_path, capsys):
    for name in ("in/a.png", "in/__MACOSX/a.png", "in/@eaDir/a.png/thumb.png"):
        save((tmp_path / name).parent, "a.png")
    (tmp_path / "in/._a.png").write_bytes(b"\0\5\26\7")
    assert predict(tmp_path / "in", "--ckpt_path", run, "--output", tmp_path / "out") == 0
    assert predict(tmp_path / "in/**/*.png", "--ckpt_path", run, "--output", tmp_path / "out2") == 0
    assert capsys.readouterr().out.count("1 predicted, 0 failed") == 2
    assert predict(tmp_path / "in/._a.png", "--ckpt_path", run, "--output", tmp_path / "out3") == 1  # named itself


def test_names_with_control_codes_are_printed_escaped(run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a\x1b[2Jred.jpg", "b\nfailed: innocent.jpg"):
        (tmp_path / "in" / name).write_text("no image")
    assert predict(tmp_path / "in", "--ckpt_path", run, "--output", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "\x1b" not in error and r"a\x1b[2Jred.jpg" in error
    assert [line[:8] for line in error.splitlines()] == ["failed: "] * 2


class TestResults:
    def test_files_hold_what_the_predictor_returns(self, run, tmp_path):
        save(tmp_path, "a.png")
        assert predict(tmp_path / "a.png", "--ckpt_path", run, "--output", tmp_path / "out") == 0
        depth = np.load(tmp_path / "out/a_depth.npy")
        assert depth.dtype == np.float32
        assert np.array_equal(depth, Predictor.load(run, processing_res=32)(tmp_path / "a.png"))
        exact = cv2.imread(str(tmp_path / "out/a_depth.png"), cv2.IMREAD_UNCHANGED)
        assert exact.dtype == np.uint16
        assert np.abs(exact / 65535 - depth).max() < 1e-5
        assert cv2.imread(str(tmp_path / "out/a_depth_color.png"), cv2.IMREAD_UNCHANGED).shape == (45, 61, 3)

    def test_normals_have_their_three_files_and_directions(self, normals_run, tmp_path):
        save(tmp_path, "a.png")
        assert predict(tmp_path / "*.png", "--ckpt_path", normals_run, "--output", tmp_path / "out") == 0
        normals = np.load(tmp_path / "out/a_normals.npy")
        assert normals.shape == (45, 61, 3)
        assert np.abs(np.linalg.norm(normals, axis=-1) - 1).max() < 1e-5
        exact = cv2.imread(str(tmp_path / "out/a_normals.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
        assert np.abs(exact / 32767.5 - 1 - normals).max() < 1e-4
        color = cv2.imread(str(tmp_path / "out/a_normals_color.png"))[..., ::-1]
        assert np.abs(color / 127.5 - 1 - normals).max() < 0.01

    def test_images_in_batches_are_predicted_as_single_ones(self, run, tmp_path):
        for seed in range(5):
            save(tmp_path / "in", f"{seed}.png", photo(30, 40 if seed % 2 else 50, seed))
        for size in (1, 4):
            assert (
                predict(tmp_path / "in", "--ckpt_path", run, "--output", tmp_path / f"{size}", "--batch_size", size)
                == 0
            )
        for seed in range(5):
            one, many = (np.load(tmp_path / f"{size}/{seed}_depth.npy") for size in (1, 4))
            assert np.abs(one - many).max() < 1e-4

    def test_results_that_are_there_stay_unless_told_otherwise(self, run, tmp_path, capsys):
        save(tmp_path / "in", "a.png")
        save(tmp_path / "in", "b.png")
        words = (tmp_path / "in", "--ckpt_path", run, "--output", tmp_path / "out")
        assert predict(*words) == 0
        (tmp_path / "out/a_depth_color.png").write_text("mine")
        (tmp_path / "out/b_depth.npy").unlink()
        assert predict(*words) == 0
        assert "1 predicted, 0 failed, 1 were there already" in capsys.readouterr().out
        assert (tmp_path / "out/a_depth_color.png").read_text() == "mine"
        assert predict(*words, "--overwrite") == 0
        assert (tmp_path / "out/a_depth_color.png").read_bytes().startswith(b"\x89PNG")

    def test_nothing_is_written_through_links_that_lead_out_of_the_output(self, run, tmp_path, capsys):
        save(tmp_path / "in/sub", "a.png")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out").mkdir()
        os.symlink(tmp_path / "elsewhere", tmp_path / "out/sub")
        assert predict(tmp_path / "in", "--ckpt_path", run, "--output", tmp_path / "out") == 1
        assert "leads out of" in capsys.readouterr().err
        assert not list((tmp_path / "elsewhere").iterdir())

    def test_an_output_inside_the_photos_is_not_predicted_again(self, run, tmp_path):
        save(tmp_path, "a.png")
        for _ in range(2):
            assert predict(tmp_path, "--ckpt_path", run, "--output", tmp_path / "out") == 0
        assert len(list((tmp_path / "out").iterdir())) == 3

    def test_a_point_cloud_lies_between_near_and_far(self, run, tmp_path):
        save(tmp_path, "a.png")
        words = ("--point_cloud", "--fov_deg", 60, "--near_m", 2, "--far_m", 4)
        assert predict(tmp_path / "a.png", "--ckpt_path", run, "--output", tmp_path / "out", *words) == 0
        head, body = (tmp_path / "out/a_points.ply").read_bytes().split(b"end_header\n")
        assert b"element vertex 2745" in head
        vertices = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
        depth = np.load(tmp_path / "out/a_depth.npy").ravel()
        assert np.abs(-vertices["xyz"][:, 2] - (2 + 2 * depth)).max() < 1e-4
        assert np.array_equal(vertices["rgb"], photo().reshape(-1, 3))


class TestMistakes:
    def error(self, capsys, *words):
        assert predict(*words) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1
        return text

    def test_each_is_one_clear_line(self, run, normals_run, tmp_path, capsys):
        save(tmp_path, "a.png")
        photo, out = tmp_path / "a.png", ("--output", tmp_path / "out")
        assert "there is no such file" in self.error(capsys, tmp_path / "b.png", "--ckpt_path", run, *out)
        assert "is no checkpoint" in self.error(capsys, photo, "--ckpt_path", tmp_path / "no.ckpt", *out)
        assert "cannot be read as a checkpoint" in self.error(
            capsys, photo, "--ckpt_path", photo, "--config", run / "config.yaml", *out
        )
        assert "is needed" in self.error(capsys, photo, *out)
        assert "--processing_rez" in self.error(capsys, photo, "--ckpt_path", run, "--processing_rez=3", *out)
        assert "there is no device" in self.error(capsys, photo, "--ckpt_path", run, "--device", "quantum", *out)
        assert "needs depth" in self.error(capsys, photo, "--ckpt_path", normals_run, "--point_cloud", *out)
        assert "no moving average" in self.error(capsys, photo, "--ckpt_path", run, "--ema", "true", *out)
        assert "the base folder" in self.error(capsys, photo, "--ckpt_path", run, "--base", tmp_path, *out)

    def test_so_is_each_of_these(self, run, tmp_path, capsys):
        save(tmp_path, "a.png")
        (tmp_path / "empty").mkdir()
        (tmp_path / "damaged").mkdir()
        (tmp_path / "damaged/model_index.json").write_text("{no json")
        (tmp_path / "file").write_text("x")
        photo, out = tmp_path / "a.png", ("--output", tmp_path / "out")
        model = ("--ckpt_path", run)
        for message, *words in (
            ("images",),
            ("output",),
            ("output: needed, and not given", photo, *model),
            ("the folder holds no images", tmp_path / "empty", *model, *out),
            ("--output {}/file cannot be made a folder: it is a file", photo, *model, "--output", tmp_path / "file"),
            ("{}/empty is no checkpoint", photo, "--model", tmp_path / "empty", *out),
            ("{}/damaged cannot be used: model_index.json is no JSON", photo, "--model", tmp_path / "damaged", *out),
            ("{}/file cannot be read as a checkpoint: it is none", photo, "--ckpt_path", tmp_path / "file", *out),
            ("both name a model", photo, *model, "--model", tmp_path, *out),
            ("must not be negative, got 32, -1", photo, *model, *out, "--tile_size", "-1"),
            ("batch_size: expected int, got x", photo, *model, *out, "--batch_size", "x"),
            ("--batch_size must be at least 1", photo, *model, *out, "--batch_size", "0"),
            ("seed must lie in", photo, *model, *out, "--seed", "-1"),
            ("0 < fov_deg < 180", photo, *model, *out, "--point_cloud", "--fov_deg", "0"),
            ("0 < near_m < far_m", photo, *model, *out, "--point_cloud", "--near_m", "9", "--far_m", "2"),
            ("focal lengths larger than 0", photo, *model, *out, "--point_cloud", "--intrinsics", 0, 1, 1, 1),
            ("--fov_deg concerns point clouds alone", photo, *model, *out, "--fov_deg", "60"),
            ("give one of them", photo, *model, *out, *"--point_cloud --fov_deg 9 --intrinsics 1 1 1 1".split()),
            ("give the configuration whose last run", photo, "--ckpt_path", "last", *out),
        ):
            assert message.format(tmp_path) in self.error(capsys, *words), words
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_is_not_there_does_not_send_one_to_the_hub_alone(self, run, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        save(tmp_path, "a.png")
        error = self.error(capsys, tmp_path / "a.png", "--model", "export/demo", "--output", tmp_path / "out")
        assert "there is no folder export/demo, and a model of that name cannot be had from the hub" in error


def test_a_full_disk_ends_the_command_and_keeps_what_is_complete(run, tmp_path, capsys):
    save(tmp_path / "photos", "a.png")
    assert predict(tmp_path / "photos", "--ckpt_path", run, "--output", tmp_path / "out") == 0
    before = sorted((tmp_path / "out").iterdir())
    save(tmp_path / "photos", "b.png")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, most))
    try:
        assert predict(tmp_path / "photos", "--ckpt_path", run, "--output", tmp_path / "out") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert "cannot be written to (File too large). What is there is complete" in capsys.readouterr().err
    assert sorted((tmp_path / "out").iterdir()) == before


def test_a_folder_that_another_process_predicts_into_is_refused(run, tmp_path, capsys):
    save(tmp_path / "photos", "a.png")
    with sole_use(tmp_path / "out"):
        assert predict(tmp_path / "photos", "--ckpt_path", run, "--output", tmp_path / "out") == 2
    assert "in use by process" in capsys.readouterr().err
