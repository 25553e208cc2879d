"""Ablations: what each of our deviations from the authors' code does, on depth, end to end from the tiny base."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from research.paper_in_miniature.experiment import Experiment
from research.paper_in_miniature.fine_tuning import Row
from research.paper_in_miniature.runs import Arm
from research.paper_in_miniature.stages import Job

DEFAULT = Arm("depth")
ARMS = {
    "default": ("all defaults: prompt of 2 tokens, bias kept, metres, any sign of the scale", DEFAULT),
    "prompt": ("prompt padded to the tokenizer's length (77 tokens)", replace(DEFAULT, prompt_length="max_length")),
    "bias": ("bias of the widened layer halved", replace(DEFAULT, halve_bias=True)),
    "normalize": ("target normalised per image (normalize_target)", replace(DEFAULT, normalize_target=True)),
    "positive": ("positive_scale", replace(DEFAULT, positive_scale=True)),
}


def jobs(experiment: Experiment) -> Iterator[Job]:
    """Yield the trainings and evaluations one by one."""
    for seed in experiment.settings.seeds:
        for key, (_, arm) in ARMS.items():
            yield Job(f"ablation {key}, seed {seed}", partial(experiment.score, arm, seed))
        yield Job(f"ablation average, seed {seed}", partial(experiment.score, DEFAULT, seed, average=True))
    yield Job("ablation mismatch", partial(_mismatch, experiment))


def rows(experiment: Experiment) -> list[Row]:
    """Return the lines of the table; the average belongs to the same trainings as the first line."""
    seeds = experiment.settings.seeds
    found = [Row(key, text, [experiment.score(arm, seed) for seed in seeds]) for key, (text, arm) in ARMS.items()]
    text = f"average of the weights (EMA {experiment.settings.ema_decay}, warm-up)"
    found.append(Row("average", text, [experiment.score(DEFAULT, seed, average=True) for seed in seeds]))
    found.append(Row("mismatch", "trained with 77 tokens, evaluated with 2, as the authors did", _mismatch(experiment)))
    return found


def _mismatch(experiment: Experiment) -> list[dict[str, float]]:
    """Score the runs that trained on the padded prompt under the short one."""
    return [experiment.score(ARMS["prompt"][1], seed, prompt_length="short") for seed in experiment.settings.seeds]
