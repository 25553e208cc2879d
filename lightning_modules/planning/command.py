"""The command ``onestep plan``."""

import json
from pathlib import Path
from typing import Annotated, Any

from geometry.command_line import Command, Option
from geometry.errors import InputError
from geometry.files.limits import MAX_SAMPLE_PIXELS
from geometry.files.writing import write_whole
from lightning_modules.command_line.console import quieten
from lightning_modules.inference.arguments import find_run_configs

_MIN_SIDE = 32  # pixels; below it the deepest layers of most networks see nothing


def plan(
    run_config: Annotated[tuple[str, ...], Option(metavar="FILE")] = (),
    gpu: Annotated[tuple[str, ...], Option(metavar="CARD")] = (),
    image_size: Annotated[tuple[int, int] | None, Option(metavar=("H", "W"))] = None,
    utilisation: float = 0.3,
    output: Annotated[Path | None, Option(also=("out",))] = None,
) -> int:
    """Say what a configuration needs before it runs: memory by phase, operations, time, and what makes it fit a card.

    A step is taken with tensors that have shapes and no memory. No weights are read or fetched; the architecture comes
    from the configs of the base: a folder, the hub, or the published ones that are shipped. What compilation saves, and
    what kernels need for themselves, is not seen.

    Args:
        run_config: Configuration of a training, a file or the name of a shipped one; several are laid over one another.
            --config takes such a file, too.
        gpu: GPU to fit, such as H100, or its memory, such as 24GB; several are answered one by one.
        image_size: Height and width of all images. By default those of the prepared data sets, else their usual ones.
        utilisation: Share of the speed that makers state which is assumed to be reached.
        output: JSON file to write, too.

    Raises:
        InputError: the configuration cannot be planned.
    """
    from lightning_modules.planning.cards import card_named
    from lightning_modules.planning.plan import largest_micro_batch, make_plan
    from lightning_modules.planning.report import as_record, describe, describe_on
    from lightning_modules.planning.setting import read_setting
    from lightning_modules.planning.ways_to_fit import cheapest_way

    if not 0 < utilisation <= 1:
        raise InputError(f"--utilisation {utilisation}: give a share above 0 and up to 1.")
    if image_size and not (min(image_size) >= _MIN_SIDE and image_size[0] * image_size[1] <= MAX_SAMPLE_PIXELS):
        raise InputError(
            f"--image_size {image_size[0]} {image_size[1]}: sides of at least {_MIN_SIDE} and at most "
            f"{MAX_SAMPLE_PIXELS} pixels, please."
        )
    if output is not None and output.is_dir():
        raise InputError(f"--output {output} is a folder; name a file.")
    cards = [card_named(name) for name in gpu]
    found = make_plan(read_setting(run_config, image_size))
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
    if output is not None:
        write_whole(output, json.dumps(record, indent=1))
    return 0


COMMAND = Command(plan, prepare_words=find_run_configs, before=quieten)
