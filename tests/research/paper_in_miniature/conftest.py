"""The work folder of a quick miniature, whose rendered halls several tests use."""

from pathlib import Path

import pytest

from research.paper_in_miniature.halls import Halls
from research.paper_in_miniature.settings import QUICK
from research.paper_in_miniature.stages import Stages


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("miniature")


@pytest.fixture(scope="session")
def halls(work) -> Halls:
    return Halls(work / "data", QUICK.data, Stages(work / "quick" / "stages"))
