import random
import signal

import pytest

from benchmarks.soak_trial import FAULTS, Trial, next_fault
from tests.helpers import runs


def test_every_kind_of_fault_comes_once_before_any_comes_again():
    deck, chance = list[str](), random.Random(3)
    for _ in range(3):
        assert sorted(next_fault(deck, chance) for _ in FAULTS) == sorted(FAULTS)


def test_every_kind_that_is_drawn_can_be_brought_about():
    assert sorted(Trial._faults(object.__new__(Trial))) == sorted(FAULTS)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_soak_in_the_background_sends_no_signal_in_vain(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        runs._heed_signals()
        assert signal.getsignal(number) is not signal.SIG_IGN
    finally:
        signal.signal(number, before)
