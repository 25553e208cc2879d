"""Results on disk: made once, never half, and shared among processes."""

import fcntl

import pytest

from research.paper_in_miniature.stages import Busy, Job, Stages


def counted(values):
    """Return a function that yields the next value at every call, and how often it was called."""
    calls = []

    def compute():
        calls.append(values[len(calls)])
        return {"value": calls[-1]}

    return compute, calls


def test_a_result_that_is_there_is_not_computed_again(tmp_path):
    compute, calls = counted([1, 2])
    assert Stages(tmp_path).json("score", {"steps": 3}, compute) == {"value": 1}
    assert Stages(tmp_path).json("score", {"steps": 3}, compute) == {"value": 1}
    assert calls == [1]


def test_changed_settings_invalidate_what_depends_on_them_alone(tmp_path):
    stages = Stages(tmp_path)
    compute, calls = counted([1, 2, 3])
    stages.json("first", {"steps": 3}, compute)
    stages.json("second", {"seed": 0}, compute)
    assert stages.json("first", {"steps": 4}, compute) == {"value": 3}
    assert stages.json("second", {"seed": 0}, compute) == {"value": 2}
    assert stages.json("first", {"steps": 3}, compute) == {"value": 1}  # the old one is still known
    assert len(calls) == 3


def test_a_killed_stage_leaves_nothing_that_counts_as_its_result(tmp_path):
    stages = Stages(tmp_path)

    def die_halfway(path):
        path.write_text("half of it")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.file("weights", {"seed": 0}, ".ckpt", die_halfway)
    file = stages.file("weights", {"seed": 0}, ".ckpt", lambda path: path.write_text("all of it"))
    assert file.read_text() == "all of it"


def test_what_another_process_makes_is_left_to_it_and_used_afterwards(tmp_path):
    stages, order = Stages(tmp_path), []

    def make(name):
        return lambda: stages.json(name, {}, lambda: order.append(name) or {"by": "this process"})

    shared = make("shared")
    shared()
    (file,) = tmp_path.glob("shared-*.json")
    done, order[:] = file.read_text(), []
    file.unlink()
    with open(tmp_path / "locks" / file.name, "w") as other:  # as another process would hold it
        fcntl.flock(other, fcntl.LOCK_EX)
        stages.wait = False
        with pytest.raises(Busy):
            shared()

        def finish_the_other():
            file.write_text(done.replace("this", "the other"))
            fcntl.flock(other, fcntl.LOCK_UN)

        stages.run([Job("shared", shared), Job("own", make("own")), Job("the other ends", finish_the_other)])
    assert order == ["own"]
    stages.run([Job("shared", shared)])
    assert order == ["own"] and "the other" in file.read_text()
