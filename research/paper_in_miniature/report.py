"""All results as one JSON document and as Markdown."""

from dataclasses import asdict
from typing import Any

from research.paper_in_miniature import ablations, claims, fine_tuning, sampling_grid
from research.paper_in_miniature.claims import Claim
from research.paper_in_miniature.experiment import Experiment
from research.paper_in_miniature.full_size import SLOW_MEMBERS, SLOW_STEPS, full_size_times
from research.paper_in_miniature.sampling_grid import describe
from research.paper_in_miniature.settings import TASKS, TaskName
from research.paper_in_miniature.tables import markdown, measured

METRICS: dict[TaskName, tuple[tuple[str, str, str], ...]] = {
    "depth": (("abs_rel", "AbsRel", ".4f"), ("delta1", "delta1", ".3f")),
    "normals": (("mean_angle_deg", "mean angle, degrees", ".2f"), ("share_under_11_25_deg", "under 11.25°", ".3f")),
}
"""Name, heading and format of the metrics in the tables, the headline metric first."""

CONSTANTS: dict[TaskName, str] = {"depth": "abs_rel_constant", "normals": "mean_angle_constant_deg"}


def collect(experiment: Experiment) -> dict[str, Any]:
    """Return every number of the tables, as JSON, from results that are there or are made now.

    Args:
        experiment: the runs and their scores.
    """
    settings, times = experiment.settings, sampling_grid.times(experiment)
    grid = [
        {
            "task": cell.task,
            **asdict(cell.sampling),
            "evaluations": cell.evaluations,
            "scores": sampling_grid.scores(experiment, cell),
        }
        for cell in sampling_grid.cells(settings)
    ]
    return {
        "settings": asdict(settings),
        "sampling_grid": grid,
        "times": [{**asdict(way), **times[describe(way)]} for way in sampling_grid.depth_ways(settings)],
        "fine_tuning": {task: [asdict(row) for row in fine_tuning.rows(experiment, task)] for task in TASKS},
        "ablations": [asdict(row) for row in ablations.rows(experiment)],
        "sweeps": {
            name: {f"{rate:g}": errors for rate, errors in sweep.items()}
            for name, sweep in (
                ("estimator", experiment.diffusion_sweep()),
                ("fine_tuning", experiment.fine_tuning_sweep()),
            )
        },
        "full_size": full_size_times(settings, experiment.runs.stages) if settings.full_size else None,
    }


def flaw_table(results: dict[str, Any]) -> str:
    """Return table 1 as Markdown.

    Args:
        results: what ``collect`` returned.
    """
    depth = {_way(cell): cell for cell in results["sampling_grid"] if cell["task"] == "depth"}
    lines = []
    for timed in results["times"]:
        spacing, steps, members = _way(timed)
        figures = ["not evaluated", ""]
        if cell := depth.get(_way(timed)):
            figures = [format(measured(cell["scores"], name), digits) for name, _, digits in METRICS["depth"]]
        where = [spacing, str(steps), str(members), str(steps * members)]
        lines.append([*where, *figures, f"{1000 * timed['s']:.0f}"])
    lines.sort(key=lambda line: (line[0], int(line[2]), int(line[1])))
    headings = [heading for _, heading, _ in METRICS["depth"]]
    return markdown(["timesteps", "steps", "members", "UNet evaluations", *headings, "ms per image"], lines)


def _way(cell: dict[str, Any]) -> tuple[str, int, int]:
    return cell["spacing"], cell["num_steps"], cell["ensemble_size"]


def rows_table(rows: list[dict[str, Any]], task: TaskName) -> str:
    """Return lines with one metric per column as Markdown.

    Args:
        rows: lines of ``fine_tuning`` or ``ablations``.
        task: depth or normals.
    """
    lines = [
        [row["text"], str(row["evaluations"])]
        + [format(measured(row["scores"], name), digits) for name, _, digits in METRICS[task]]
        for row in rows
    ]
    lines.append(["best constant", "", format(rows[0]["scores"][0][CONSTANTS[task]], METRICS[task][0][2]), ""])
    return markdown([task, "UNet evaluations", *(heading for _, heading, _ in METRICS[task])], lines)


def sweep_table(sweep: dict[str, dict[str, float]]) -> str:
    """Return a sweep of learning rates as Markdown.

    Args:
        sweep: AbsRel on the selection halls by learning rate and start.
    """
    names = list(next(iter(sweep.values())))
    lines = [[rate, *(f"{errors[name]:.4f}" for name in names)] for rate, errors in sweep.items()]
    return markdown(["learning rate", *names], lines)


def judge(results: dict[str, Any]) -> list[Claim]:
    """Return the paper's claims with their verdicts.

    Args:
        results: what ``collect`` returned.
    """
    found = [*_judge_flaw(results)]
    if times := results["full_size"]:
        text = f"over 200 times faster than {SLOW_STEPS} steps x {SLOW_MEMBERS} members (full size)"
        found.append(claims.at_least(text, _full_size_ratio(times, "s" if times["is_gpu"] else "cpu_s"), 200))
    for task in TASKS:
        found += _judge_fine_tuning(task, results["fine_tuning"][task])
    return found


def _judge_flaw(results: dict[str, Any]) -> list[Claim]:
    (metric, _, digits), *_ = METRICS["depth"]
    depth = [cell for cell in results["sampling_grid"] if cell["task"] == "depth"]
    error = {_way(cell): measured(cell["scores"], metric) for cell in depth}
    seconds = {_way(timed): timed["s"] for timed in results["times"]}
    fixed, flawed = ("trailing", 1, 1), ("leading", 1, 1)
    longest = max(results["settings"]["grid_steps"])
    # The usual way: leading, with as many steps and members as were evaluated, or timed.
    slow, slowest = (
        max((way for way in ways if way[0] == "leading"), key=lambda way: way[1] * way[2]) for ways in (error, seconds)
    )
    return [
        claims.better(
            f"depth: leading with 1 step is worse than with {longest}",
            error["leading", longest, 1],
            error[flawed],
            digits,
        ),
        claims.better("depth: at 1 step, trailing is better than leading", error[fixed], error[flawed], digits),
        claims.as_good(
            f"depth: trailing with 1 step is as good as leading with {_words(slow)}", error[fixed], error[slow], digits
        ),
        claims.at_least(
            f"over 200 times faster than {_words(slowest)} (tiny base)", seconds[slowest] / seconds[fixed], 200
        ),
    ]


def _words(way: tuple[str, int, int]) -> str:
    return f"{way[1]} steps x {way[2]} members"


def _judge_fine_tuning(task: TaskName, rows: list[dict[str, Any]]) -> list[Claim]:
    (metric, _, digits), *_ = METRICS[task]
    error = {row["key"]: measured(row["scores"], metric) for row in rows}
    tuned, base = error["e2e estimator"], error["e2e base"]
    random, gaussian, pyramid = (error[f"e2e {key}"] for key in ("random", "estimator gaussian", "estimator pyramid"))
    return [
        claims.better(f"{task}: E2E is better than the estimator's best slow way", tuned, error["slow"], digits),
        claims.better(f"{task}: E2E is better than the fixed single step", tuned, error["trailing"], digits),
        claims.as_good(f"{task}: E2E from the base is as good as from the estimator", base, tuned, digits),
        claims.as_good(
            f"{task}: E2E from the base is as good, given the estimator's training time, too",
            error["e2e base longer"],
            tuned,
            digits,
        ),
        claims.better(f"{task}: the base is a better start than random weights", base, random, digits),
        claims.better(f"{task}: zeros are better than gaussian noise", tuned, gaussian, digits),
        claims.better(f"{task}: zeros are better than pyramid noise", tuned, pyramid, digits),
    ]


def as_markdown(results: dict[str, Any]) -> str:
    """Return all tables and verdicts as Markdown.

    Args:
        results: what ``collect`` returned.
    """
    parts = ["Table 1, the flaw (depth)", flaw_table(results)]
    for task in TASKS:
        parts += [f"Table 2, fine-tuning ({task})", rows_table(results["fine_tuning"][task], task)]
    parts += ["Ablations (depth, E2E from the tiny base)", rows_table(results["ablations"], "depth")]
    for name, sweep in results["sweeps"].items():
        if any(sweep.values()):
            parts += [f"AbsRel on the selection halls by learning rate ({name})", sweep_table(sweep)]
    if results["full_size"]:
        parts += ["Stable Diffusion 2's architecture, random weights", _full_size_table(results["full_size"])]
    claim_lines = [[claim.text, claim.verdict, claim.numbers] for claim in judge(results)]
    parts += ["Claims", markdown(["claim", "verdict", "measured"], claim_lines)]
    return "\n\n".join(parts) + "\n"


def _full_size_table(times: dict[str, float]) -> str:
    slow, parts = f"{SLOW_STEPS} steps x {SLOW_MEMBERS} members", ("encode", "unet", "decode")
    lines = [[slow, "slow"], ["1 step", "fast"], *([f"of it {part}", part] for part in parts)]
    table = [[text, f"{times[f'{key}_s']:.2f}", f"{times[f'{key}_cpu_s']:.2f}"] for text, key in lines]
    ratios = [f"{_full_size_ratio(times, clock):.0f}" for clock in ("s", "cpu_s")]
    table.append([f"ratio of {slow} to 1 step", *ratios])
    size = f"{times['height']:.0f}x{times['width']:.0f}"
    return markdown([f"one image of {size}", "wall seconds", "processor seconds"], table)


def _full_size_ratio(times: dict[str, float], clock: str) -> float:
    return times[f"slow_{clock}"] / times[f"fast_{clock}"]
