"""The one command for the day there is a GPU: it ends in time, and leaves what it found after every part."""

import json
import time

import pytest

from benchmarks import on_gpu
from benchmarks.on_gpu import Part, main, rows_of, run_part

DONE = Part("done", ("platform",))
FAILING = Part("failing", ("no_such_module",))
ENDLESS = Part("endless", ("pdb", "-c", "continue", "-m", "http.server", "0"))


def test_a_part_that_does_not_end_is_ended(tmp_path):
    start = time.monotonic()
    found = run_part(ENDLESS, tmp_path, seconds=2)
    assert found["state"] == "out of time"
    assert time.monotonic() - start < 60


def test_what_fails_is_said_with_its_output_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(on_gpu, "parts_of", lambda *_: [FAILING, DONE])
    out = tmp_path / "on_gpu.json"
    assert main(["--out", str(out), "--minutes", "1"]) == 1
    results = json.loads(out.read_text())["results"]
    assert results["failing"]["state"] == "failed"
    assert "no_such_module" in results["failing"]["output"]
    assert results["done"]["state"] == "done"
    assert (tmp_path / "on_gpu.md").read_text().count("\n| ") == 2


def test_nothing_is_begun_without_time(tmp_path, monkeypatch):
    monkeypatch.setattr(on_gpu, "parts_of", lambda *_: [ENDLESS, DONE])
    out = tmp_path / "on_gpu.json"
    assert main(["--out", str(out), "--minutes", "0.05"]) == 0
    results = json.loads(out.read_text())["results"]
    assert [part["state"] for part in results.values()] == ["no time left"] * 2


def test_rows_name_every_candidate():
    found = {
        "step": {"state": "done", "seconds": 1, "results": {"ours": {"seconds_per_step": {"median": 0.5}}}},
        "memory": {
            "state": "done",
            "seconds": 1,
            "results": {"ratio": 1.0, "measured": 2**30, "planned": 2**30, "reserved": 3 * 2**29},
        },
    }
    text = "\n".join(rows_of(found))
    assert "ours: 0.5 s per step" in text
    assert "planned 1.000 GiB, measured 1.000 GiB: 1.0, reserved 1.500 GiB" in text


@pytest.mark.slow
def test_it_runs_to_its_end_on_a_cpu(tmp_path):
    out = tmp_path / "on_gpu.json"
    assert main(["--size", "tiny", "--device", "cpu", "--minutes", "30", "--out", str(out)]) == 0
    results = json.loads(out.read_text())["results"]
    assert {part["state"] for part in results.values()} == {"done"}
    waited = results["loader"]["results"]["ours"]["trainer"]
    assert waited["workers"] == 1 and 0 <= waited["data_wait_share"] <= 1, "the loader ran beside the step"
    memory = {name: part["results"] for name, part in results.items() if name.startswith("memory")}
    assert len(memory) == 5 and all(0.95 < part["ratio"] < 1.05 for part in memory.values())
    assert memory["memory_largest_first"]["image_sizes"] == [[64, 96], [64, 64]]
    assert memory["memory_largest_later"]["image_sizes"] == [[64, 64], [64, 96]]
