"""The short form of ``python -m benchmarks.attack``: always the same few cases of every format."""

import os
import random
import time
from pathlib import Path

import pytest

from geometry.errors import InputError
from tests.helpers.hostile.formats import Format, all_formats
from tests.helpers.hostile.judging import judge

NUM_CASES = 4


@pytest.mark.parametrize("kind", all_formats(), ids=lambda kind: kind.name)
def test_broken_files_are_refused_or_make_sense(kind):
    kind.warm_up()
    for number in range(NUM_CASES):
        verdict = judge(kind, kind.case(random.Random(f"test {kind.name} {number}")))
        assert verdict.is_right, f"case {number}: {verdict.end}\n{verdict.told}"


def _probe(read):
    return judge(Format("probe", lambda: [b""], lambda folder, data: read(folder)), b"")


def _refuse(folder: Path):
    raise InputError("no")


def _start_a_program(folder: Path):
    import subprocess

    subprocess.run(["true"], check=True)


# The temporary folder of the machine is allowed, and a checkout may lie in it.
_ELSEWHERE = Path("/var/tmp") / f"onestep-hostile-{os.getpid()}.txt"


def _write_elsewhere(folder: Path):
    _ELSEWHERE.write_text("x")


def _take_memory(folder: Path):
    assert len(bytearray(b"x") * (600 << 20))


def _take_time(folder: Path):
    begin = time.process_time()
    while time.process_time() < begin + 2.2:
        pass


def _crash(folder: Path):
    import ctypes

    ctypes.string_at(0)


@pytest.mark.parametrize(
    ("read", "end"),
    [
        (lambda folder: None, "accepted"),
        (_refuse, "refused"),
        (lambda folder: {}["x"], "traceback: KeyError"),
        (_start_a_program, "deed: subprocess.Popen"),
        (_write_elsewhere, "deed: open"),
        (_take_memory, "growth"),
        (_take_time, "slow"),
        (_crash, "crash: SIGSEGV"),
    ],
)
def test_the_judge_sees_what_is_wrong(read, end):
    verdict = _probe(read)
    _ELSEWHERE.unlink(missing_ok=True)
    assert verdict.end.startswith(end), f"{verdict.end}: {verdict.told}"


def test_a_process_hangs_that_sleeps_and_not_one_that_works_however_long_it_takes():
    def work(folder: Path):
        begin = time.monotonic()
        while time.monotonic() < begin + 0.5:
            pass

    def wait(folder: Path):
        os.mkfifo(folder / "pipe")
        (folder / "pipe").read_bytes()

    probes = [Format("probe", lambda: [b""], lambda folder, data, read=read: read(folder)) for read in (work, wait)]
    ends = [judge(probe, b"", 0.1).end for probe in probes]
    assert ends == ["accepted", "hang"]


def test_equal_seeds_make_equal_cases():
    for kind in all_formats():
        first, second = (kind.case(random.Random("3")) for _ in range(2))
        assert kind.name == "checkpoint" or first == second, kind.name
