"""Compare the field's recipes on a small scale: ``python -m research.recipes_in_miniature``.

Every recipe starts from a tiny base and has the same steps, learning rate and halls; each is scored on unseen halls
under both protocols. Everything is kept in the work folder, a file per recipe and seed: a command that was killed goes
on, another with further seeds or recipes adds them, commands that share the folder share the work, and a table can be
written of what is there (``--table``).
"""

import argparse
import logging
from pathlib import Path

import torch

from geometry.command_line.messages import leave
from geometry.errors import InputError
from lightning_modules.command_line.console import input_error_behind, quieten
from research.paper_in_miniature.stages import Job
from research.recipes_in_miniature.bases import BASES, BaseName
from research.recipes_in_miniature.recipes import Recipe, recipes_of
from research.recipes_in_miniature.table import as_markdown
from research.recipes_in_miniature.training import Comparison, settings_of


def main(arguments: list[str] | None = None) -> None:
    """Run what is not in the work folder yet, then write ``results.md``.

    Args:
        arguments: the command line as a list; None is that of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m research.recipes_in_miniature",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, default=Path("runs/recipes_in_miniature"), help="folder of all results")
    parser.add_argument("--base", choices=BASES, default="unet", help="what recipes start from (default: unet)")
    parser.add_argument("--seeds", type=int, nargs="+", help="train these; by default 0, 1 and 2, or 0 with --quick")
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="train these; by default all")
    parser.add_argument("--quick", action="store_true", help="see in minutes that everything works")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table of what is there")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of this process (default: 1)")
    options = parser.parse_args(arguments)
    quieten()
    torch.set_num_threads(options.threads)
    trainers = logging.getLogger("lightning.pytorch")
    level = trainers.level
    trainers.setLevel(logging.WARNING)  # what each of a hundred trainers would say
    settings = settings_of(options.base, options.quick)
    work = options.work / ("quick" if options.quick else "full")
    try:
        comparison = Comparison(settings, work)
        jobs = [
            Job(f"{recipe.name}, seed {seed}", lambda recipe=recipe, seed=seed: comparison.score(recipe, seed))
            for seed in (options.seeds or settings.seeds)
            for recipe in _chosen(options.base, options.recipes)
        ]
        if not options.table:
            comparison.stages.run(jobs)
        text = as_markdown(settings, comparison.found())
    except Exception as error:
        mistake = input_error_behind(error)
        if mistake is None:
            raise
        leave(mistake)
    finally:
        trainers.setLevel(level)
    table = work / f"results_{options.base}.md"
    table.write_text(text)
    print(f"\n{text}\nTable: {table}")


def _chosen(base: BaseName, names: list[str] | None) -> list[Recipe]:
    """Return the named recipes of a base, or all of them.

    Raises:
        InputError: one of them is not compared on the base.
    """
    known = {recipe.name: recipe for recipe in recipes_of(base)}
    for name in names or []:
        if name not in known:
            raise InputError(f"--recipes {name} is none of --base {base}; choose from {', '.join(known)}.")
    return [recipe for name, recipe in known.items() if names is None or name in names]


if __name__ == "__main__":
    main()
