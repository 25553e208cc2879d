"""The whole miniature: all jobs in a sensible order, then tables, figures and the verdict on the claims."""

import json
import os
from functools import partial
from pathlib import Path

from research.paper_in_miniature import ablations, fine_tuning, sampling_grid
from research.paper_in_miniature.experiment import Experiment
from research.paper_in_miniature.figures import write_figures
from research.paper_in_miniature.full_size import full_size_times
from research.paper_in_miniature.halls import Halls
from research.paper_in_miniature.report import as_markdown, collect
from research.paper_in_miniature.runs import Runs
from research.paper_in_miniature.settings import Settings
from research.paper_in_miniature.stages import Job, Stages


def make_miniature(settings: Settings, work: Path) -> None:
    """Make what is not there yet, and write ``results.json``, ``results.md`` and the figures.

    Args:
        settings: everything that results depend on.
        work: folder of all results; rendered scenes are kept beside it.
    """
    stages = Stages(work / "stages")
    experiment = Experiment(Runs(settings, stages, Halls(work.parent / "data", settings.data, stages)))
    stages.run(all_jobs(experiment))
    results = collect(experiment)
    for name, text in (("results.json", json.dumps(results, indent=1)), ("results.md", as_markdown(results))):
        unfinished = work / f"unfinished-{os.getpid()}-{name}"
        unfinished.write_text(text)
        unfinished.replace(work / name)
    print(f"\n{as_markdown(results)}\nTables: {work / 'results.md'}, {work / 'results.json'}")
    write_figures(experiment, results, work)


def all_jobs(experiment: Experiment) -> list[Job]:
    """Return everything that is to be made: first what others wait for, last what costs most per number."""
    settings, stages = experiment.settings, experiment.runs.stages
    jobs = [
        *experiment.jobs(),
        *fine_tuning.jobs(experiment),
        *ablations.jobs(experiment),
        Job("times", partial(sampling_grid.times, experiment)),
    ]
    if settings.full_size:
        jobs.append(Job("times at full size", partial(full_size_times, settings, stages)))
    return [*jobs, *sampling_grid.jobs(experiment)]
