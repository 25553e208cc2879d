"""Feed thousands of broken and hostile files of every format to the code that reads them, and count how it ends.

Every case runs in a process of its own with limits on time and memory. Right is one clear error, or a result that
makes sense, within 2 seconds of processor time and 500 MB beyond the process; ``tests.helpers.hostile.judging`` has the
rules. The bytes of what went wrong are kept. Run it from the project's folder:

    python -m benchmarks.attack --minutes 10 --seed 0
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measuring import describe_machine, use_one_thread
from tests.helpers.hostile.formats import Format, all_formats
from tests.helpers.hostile.judging import Verdict, judge


@dataclass
class Tally:
    """How the cases of one format ended.

    Attributes:
        ends: number of cases by how they ended.
        slowest_s: processor time of the slowest case.
        most_mb: memory of the case that took the most, beyond the process.
    """

    ends: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    most_mb: float = 0.0

    def add(self, verdict: Verdict) -> None:
        """Count a case."""
        self.ends[verdict.end if verdict.is_right else f"wrong: {verdict.end}"] += 1
        self.slowest_s = max(self.slowest_s, verdict.seconds)
        self.most_mb = max(self.most_mb, verdict.growth_mb)

    @property
    def wrong(self) -> int:
        """Number of cases that ended wrong."""
        return sum(count for end, count in self.ends.items() if end.startswith("wrong"))


def cases(formats: Sequence[Format], seed: int) -> Iterator[tuple[int, Format, bytes]]:
    """Yield number, format and file of case after case without end, the formats in turn.

    Args:
        formats: what to attack.
        seed: equal seeds give equal cases.
    """
    foreign = [whole for kind in formats for whole in kind.wholes() if len(whole) < 100_000]
    number = 0
    while True:
        for kind in formats:
            yield number, kind, kind.case(random.Random(f"{seed} {kind.name} {number}"), foreign)
        number += 1


def attack(formats: Sequence[Format], minutes: float, most: int, seed: int, keep: Path) -> dict[str, Tally]:
    """Judge cases until the time or their number is over; keep the files of those that ended wrong.

    Args:
        formats: what to attack.
        minutes: when to stop.
        most: number of cases after which to stop.
        seed: seed of all cases.
        keep: folder for what went wrong: the bytes, and what was told.
    """
    tallies: dict[str, Tally] = {kind.name: Tally() for kind in formats}
    for kind in formats:
        kind.warm_up()
    end_s = time.monotonic() + 60 * minutes
    for done, (number, kind, data) in enumerate(cases(formats, seed)):
        if time.monotonic() > end_s or done >= most:
            break
        verdict = judge(kind, data)
        tallies[kind.name].add(verdict)
        if not verdict.is_right:
            place = keep / f"{kind.name.replace('/', '-').replace(' ', '-')}-{seed}-{number}"
            place.mkdir(parents=True, exist_ok=True)
            (place / "file").write_bytes(data)
            (place / "told.txt").write_text(f"{kind.name}: {verdict.end}\n{verdict.told}", errors="replace")
            print(f"WRONG {kind.name}: {verdict.end}; {place}", flush=True)
    return tallies


def main() -> None:
    """Read the options, attack, print a table and the result as JSON; status 1 if anything ended wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="How long to go on.")
    parser.add_argument("--cases", type=int, default=10**9, help="How many cases at most.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the cases.")
    parser.add_argument("--only", default="", help="Attack only formats whose names hold this.")
    parser.add_argument("--keep", type=Path, default=Path("runs/attack"), help="Where files that ended wrong go.")
    options = parser.parse_args()
    use_one_thread()
    formats = [kind for kind in all_formats() if options.only in kind.name]
    tallies = attack(formats, options.minutes, options.cases, options.seed, options.keep)
    for name, tally in tallies.items():
        ends = ", ".join(f"{count} {end}" for end, count in sorted(tally.ends.items()))
        print(f"{name:32} {tally.slowest_s:6.2f} s {tally.most_mb:6.0f} MB  {ends}")
    wrong, total = (sum(counts) for counts in zip(*((t.wrong, t.ends.total()) for t in tallies.values()), strict=True))
    print(json.dumps({"cases": total, "wrong": wrong, "seed": options.seed, **describe_machine()["hardware"]}))
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
