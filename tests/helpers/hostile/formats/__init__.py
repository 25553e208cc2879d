"""Every format that the project reads: whole files, ways to break them, and the code that reads them for a user."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests.helpers.hostile.mutations import ANY_FORMAT, Mutation, mutate

Attack = Callable[[random.Random], bytes]


@dataclass(frozen=True)
class Format:
    """One kind of file at one way into the project.

    Attributes:
        name: how it appears in tables.
        wholes: makes files that must be accepted, as a user would have them.
        read: reads the bytes as the commands do, in an empty folder; raises ``InputError`` where it refuses them, and
            asserts that what it accepts makes sense.
        ways: how whole files are broken.
        attacks: files that are hostile by design.
        lacks_more: whole files are refused, too, for want of something else than the file.
    """

    name: str
    wholes: Callable[[], Sequence[bytes]]
    read: Callable[[Path, bytes], None]
    ways: Sequence[Mutation] = ANY_FORMAT
    attacks: Sequence[Attack] = field(default=())
    lacks_more: bool = False

    def warm_up(self) -> None:
        """Read whole files in this process, which imports what reading needs, and must succeed."""
        for whole in self.wholes():
            with TemporaryDirectory(prefix="attack-") as folder, suppress(*((SystemExit,) if self.lacks_more else ())):
                self.read(Path(folder), whole)

    def case(self, chance: random.Random, foreign: Sequence[bytes] = ()) -> bytes:
        """Return a broken or hostile file.

        Args:
            chance: source of all random choices.
            foreign: files of other formats, which are tried under this one's name.
        """
        if self.attacks and chance.random() < 0.2:
            data = chance.choice(self.attacks)(chance)
            return mutate(chance, data, self.ways) if chance.random() < 0.2 else data
        if foreign and chance.random() < 0.03:
            return chance.choice(foreign)
        return mutate(chance, chance.choice(self.wholes()), self.ways)


def assert_finite(*arrays: np.ndarray) -> None:
    """Assert that arrays hold finite numbers alone."""
    for array in arrays:
        assert np.isfinite(np.asarray(array, np.float64)).all(), "accepted with numbers that are not finite"


def all_formats() -> list[Format]:
    """Return all formats, in the order of tables."""
    from tests.helpers.hostile.formats import benchmarks, configs, images, models, raw, results, shards

    modules = (shards, raw, images, benchmarks, models, configs, results)
    return [kind for module in modules for kind in module.FORMATS]
