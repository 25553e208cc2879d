"""python train.py export."""

import resource

import huggingface_hub
import pytest

import train
from geometry.files.locks import sole_use
from tests.lightning_modules.inference.runs import make_run

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


def error_of(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        train.main(["export", *map(str, words)])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_an_upload_that_fails_leaves_the_export_and_says_how_to_go_on(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    words = ("--ckpt_path", run, "--output", tmp_path / "out", "--push_to_hub", "me/model")
    assert "is complete, but cannot be uploaded to me/model" in error_of(capsys, *words)
    assert (tmp_path / "out/model_index.json").is_file()


def test_mistakes_are_found_before_the_model_is_loaded(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "is a file" in error_of(capsys, "--ckpt_path", run, "--output", tmp_path / "file")
    assert "got tflite" in error_of(capsys, "--ckpt_path", run, "--output", tmp_path, "--format", "tflite")
    assert "output: needed, and not given" in error_of(capsys, "--ckpt_path", run)
    words = ("--ckpt_path", tmp_path / "none.ckpt", "--output", tmp_path / "out", "--push_to_hub", "no name")
    assert "--push_to_hub no name: Repo id" in error_of(capsys, *words)
    for given, told in ((["--push_to_hub", ""], "--push_to_hub : Repo id"), (["--private"], "--private concerns")):
        assert told in error_of(capsys, "--ckpt_path", run, "--output", tmp_path / "out", *given)
    assert "cannot be written to " in error_of(capsys, "--ckpt_path", run, "--output", tmp_path / "file/out")


@pytest.mark.parametrize("command", ["predict", "export"])
def test_every_option_is_explained(command, capsys):
    with pytest.raises(SystemExit) as ended:
        train.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "--ckpt_path" in text and "--output" in text


def test_a_full_disk_is_one_line_and_leaves_the_former_export(run, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    (output / "onestep.json").write_text("of a former export")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most))
    try:
        error = error_of(capsys, "--ckpt_path", run, "--output", output, "--overwrite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert "cannot be written (File too large" in error and "Nothing was changed" in error
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert [file.name for file in output.iterdir()] == ["onestep.json"]


def test_a_folder_that_another_export_is_writing_is_refused_at_once(run, tmp_path, capsys):
    with sole_use(tmp_path, ".out.lock"):
        assert "in use by process" in error_of(capsys, "--ckpt_path", run, "--output", tmp_path / "out")
