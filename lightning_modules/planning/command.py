"""The command ``plan``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geometry.errors import InputError
from geometry.writing import write_whole
from lightning_modules.planning.cards import card_named
from lightning_modules.planning.plan import largest_micro_batch, make_plan
from lightning_modules.planning.report import as_record, describe, describe_on
from lightning_modules.planning.setting import read_setting
from lightning_modules.planning.ways_to_fit import cheapest_way


def plan(
    config: list[str],
    gpu: list[str] | None = None,
    image_size: tuple[int, int] | None = None,
    utilisation: float = 0.3,
    out: Path | None = None,
) -> int:
    """Say what a configuration needs before it runs: memory by phase, operations, time, and what makes it fit a card.

    A step is taken with tensors that have shapes and no memory. No weights are read or fetched; the architecture comes
    from the configs of the base: a folder, the hub, or the published ones that are shipped. What compilation saves, and
    what kernels need for themselves, is not seen.

    Args:
        config: Configuration to plan: a file or the name of a shipped one; given several times, laid over one another.
        gpu: GPU to fit, such as H100, or its memory, such as 24GB; may be given several times.
        image_size: Height and width of all images. By default those of the prepared data sets, else their usual ones.
        utilisation: Share of the speed that makers state which is assumed to be reached.
        out: JSON file to write, too.

    Raises:
        InputError: the configuration cannot be planned.
    """
    if not 0 < utilisation <= 1:
        raise InputError(f"--utilisation {utilisation}: give a share above 0 and up to 1.")
    cards = [card_named(name) for name in gpu or []]
    found = make_plan(read_setting(config, image_size))
    print("\n".join(describe(found)), flush=True)
    record: dict[str, Any] = as_record(found)
    for card in cards:
        most = largest_micro_batch(found, card)
        way = None if found.fits(card) else cheapest_way(found, card)
        print("\n".join(describe_on(found, card, most, way, utilisation)), flush=True)
        seconds = found.seconds_per_step(card, utilisation)
        record.setdefault("cards", {})[card.name] = {
            "fits": found.fits(card),
            "largest_micro_batch": most,
            "seconds_per_step": seconds,
            "way": list(way.options) if way else None,
        }
    if out is not None:
        write_whole(out, json.dumps(record, indent=1))
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Run the command from a command line.

    Args:
        args: the words; None is those of the process.
    """
    import argparse

    parser = argparse.ArgumentParser(prog="python -m lightning_modules.planning", description=plan.__doc__)
    parser.add_argument("--config", action="append", required=True)
    parser.add_argument("--gpu", action="append")
    parser.add_argument("--image_size", type=int, nargs=2)
    parser.add_argument("--utilisation", type=float, default=0.3)
    parser.add_argument("--out", type=Path)
    options = vars(parser.parse_args(args))
    return plan(**options | {"image_size": tuple(options["image_size"]) if options["image_size"] else None})
