"""A preparation that is killed is continued: no sample is redone, lost or changed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from datamodules.preparation import run
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.run import prepare_dataset
from datamodules.preparation.sidecars import discard
from datamodules.sources.hypersim import Hypersim
from geometry.errors import InputError
from tests.helpers.planes import write_hypersim_frame

SIZE = (24, 32)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    for number in range(12):
        write_hypersim_frame(folder, number=number, size=SIZE)
    return folder


def prepare(raw, out, said=None, **arguments):
    options = arguments.pop("options", ShardOptions(samples_per_shard=2))
    report = (said if said is not None else []).append
    return prepare_dataset(Hypersim(raw, SIZE), out, options, progress=False, report=report, **arguments)


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    pass


def stop_after(monkeypatch, shards, error=Killed):
    """Stop the run in the moment when it notes the next shard: its file is there, its record is not."""
    write = run.write_sidecar

    def write_or_stop(folder, *shard):
        if len(list(folder.glob("*/*.json"))) == shards:
            raise error
        write(folder, *shard)

    monkeypatch.setattr(run, "write_sidecar", write_or_stop)


def test_finished_shards_are_kept_and_only_the_others_are_made_again(raw, tmp_path, monkeypatch):
    prepare(raw, tmp_path / "undisturbed")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        stop_after(patched, 2)
        prepare(raw, tmp_path / "out")
    assert not (tmp_path / "out/dataset.json").exists()
    loaded, load = [], Hypersim.load
    monkeypatch.setattr(Hypersim, "load", lambda self, frame: loaded.append(frame.key) or load(self, frame))
    said = []
    manifest = prepare(raw, tmp_path / "out", said)
    assert len(loaded) == 8 and "Continuing: 2 of 6 shards are finished." in said
    assert manifest.num_samples("train") == 12
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_a_finished_shard_that_was_removed_or_cut_off_is_made_again(raw, tmp_path, monkeypatch):
    prepare(raw, tmp_path / "undisturbed")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        stop_after(patched, 4)
        prepare(raw, tmp_path / "out")
    (tmp_path / "out/train/hypersim-train-000000.tar").unlink()
    (tmp_path / "out/train/hypersim-train-000001.tar").write_bytes(b"short")
    prepare(raw, tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_continuing_with_other_options_is_refused_and_names_them(raw, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(Killed):
        stop_after(patched, 2)
        prepare(raw, tmp_path)
    before = content(tmp_path)
    with pytest.raises(InputError, match=r"image_quality: 95 then, 80 now.*--overwrite"):
        prepare(raw, tmp_path, options=ShardOptions(samples_per_shard=2, image_quality=80))
    assert content(tmp_path) == before
    prepare(raw, tmp_path, options=ShardOptions(samples_per_shard=3), overwrite=True)
    assert len(list(tmp_path.rglob("*.tar"))) == 4 and not list(tmp_path.glob("*/*.json"))


def test_continuing_with_other_frames_is_refused(raw, tmp_path, monkeypatch):
    copy = shutil.copytree(raw, tmp_path / "raw")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        stop_after(patched, 2)
        prepare(copy, tmp_path / "out")
    write_hypersim_frame(copy, number=12, size=SIZE)
    with pytest.raises(InputError, match="other raw frames"):
        prepare(copy, tmp_path / "out")


@pytest.mark.parametrize("moment", range(9))
def test_a_kill_while_any_file_is_written_leaves_nothing_behind_in_the_end(raw, tmp_path, monkeypatch, moment):
    options = ShardOptions(samples_per_shard=3)  # four shards, as many sidecars, and dataset.json
    prepare(raw, tmp_path / "undisturbed", options=options)
    replaced, replace = [], os.replace

    def replace_or_stop(source, target):
        if len(replaced) == moment:
            os._exit(9)
        replaced.append(target)
        replace(source, target)

    child = os.fork()
    if not child:
        monkeypatch.setattr(os, "replace", replace_or_stop)
        prepare(raw, tmp_path / "out", options=options)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    prepare(raw, tmp_path / "out", options=options)
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_a_finished_data_set_is_not_made_again(raw, tmp_path, monkeypatch):
    first = prepare(raw, tmp_path)
    before = content(tmp_path)
    monkeypatch.setattr(Hypersim, "load", None)
    said = []
    assert prepare(raw, tmp_path, said) == first
    assert "complete already" in said[-1] and content(tmp_path) == before


def test_a_full_disk_stops_with_what_is_written_kept(raw, tmp_path, monkeypatch):
    prepare(raw, tmp_path / "undisturbed")
    with monkeypatch.context() as patched:
        stop_after(patched, 3, OSError(28, "No space left on device"))
        with pytest.raises(InputError, match=r"No space left on device.*is kept.*Make room"):
            prepare(raw, tmp_path / "out", max_errors=100)
    assert not list((tmp_path / "out").rglob("*.tar.tmp"))
    prepare(raw, tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def start(raw, out):
    words = f"hypersim --raw {raw} --out {out} --size 24 32 --samples_per_shard 2 --workers 2 --quiet".split()
    command = [sys.executable, "-m", "datamodules.prepare", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_after(process, out, shards, seconds):
    """Kill the process some time after it has noted a number of shards."""
    deadline = time.monotonic() + 120
    while len(list(out.glob("train/hypersim-*.json"))) < shards:
        assert time.monotonic() < deadline, "no shard was finished"
        if process.poll() is not None:
            return
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def kill_and_continue(raw, out, moments):
    dice = random.Random(0)
    for moment in range(moments):
        process = start(raw, out)
        kill_after(process, out, 1 + moment % 4, dice.uniform(0, 0.03))
    process = start(raw, out)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said


def test_a_run_with_two_workers_killed_at_a_random_moment_ends_in_the_same_bytes(raw, tmp_path):
    prepare(raw, tmp_path / "undisturbed")
    kill_and_continue(raw, tmp_path / "out", moments=1)
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


@pytest.mark.slow
def test_ten_kills_end_in_the_same_bytes(tmp_path):
    for number in range(48):
        write_hypersim_frame(tmp_path / "raw", number=number, size=SIZE)
    prepare(tmp_path / "raw", tmp_path / "undisturbed")
    kill_and_continue(tmp_path / "raw", tmp_path / "out", moments=10)
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_a_damaged_record_is_named(raw, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(Killed):
        stop_after(patched, 2)
        prepare(raw, tmp_path)
    path = tmp_path / "train/hypersim-train-000001.json"
    assert json.loads(path.read_text())["info"]["samples"] == 2
    path.write_text("{")
    with pytest.raises(InputError, match=r"hypersim-train-000001\.json is damaged"):
        prepare(raw, tmp_path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_an_earlier_version_began_is_refused_or_replaced(raw, tmp_path, overwrite):
    plan = tmp_path / "out/preparation/plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text(json.dumps({"manifest": {}, "shards": [["train", "train/hypersim-train-000009.tar"]]}))
    (tmp_path / "out/train").mkdir()
    (tmp_path / "out/train/hypersim-train-000009.tar").write_bytes(b"finished then")
    if overwrite:
        prepare(raw, tmp_path / "undisturbed")
        prepare(raw, tmp_path / "out", overwrite=True)
        assert content(tmp_path / "out") == content(tmp_path / "undisturbed")
    else:
        with pytest.raises(InputError, match=r"out holds .* an earlier version .*Finish it.*--overwrite"):
            prepare(raw, tmp_path / "out")


@pytest.mark.parametrize(
    "text", ['{"shards": [["train", "../mine.tar"]]}', '{"shards": [["train", 3]]}', '{"shards": 3}', "[]", "{"]
)
def test_overwriting_removes_nothing_elsewhere_whatever_an_earlier_plan_says(tmp_path, text):
    (tmp_path / "mine.tar").touch()
    plan = tmp_path / "out/preparation/plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text(text)
    discard(tmp_path / "out")
    assert (tmp_path / "mine.tar").exists() and not plan.exists()


def test_a_damaged_sidecar_can_be_overwritten(raw, tmp_path):
    prepare(raw, tmp_path / "undisturbed")
    (tmp_path / "out/train").mkdir(parents=True)
    (tmp_path / "out/train/hypersim-train-000001.json").write_text("{")
    prepare(raw, tmp_path / "out", overwrite=True)
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")
