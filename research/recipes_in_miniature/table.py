"""The table of recipes and the verdicts on the claims, as Markdown."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from research.recipes_in_miniature.bases import BASES
from research.recipes_in_miniature.claims import claims_of
from research.recipes_in_miniature.recipes import recipes_of
from research.recipes_in_miniature.training import Settings

COLUMNS = {
    "abs_rel": "AbsRel, least squares",
    "ransac_log_abs_rel": "AbsRel, RANSAC log",
    "delta1": "delta1",
    "least_squares_see3": "soft edges (see3), m",
    "upside_down_share": "upside down, share",
    "mean_angle_deg": "normals, degrees",
}


def as_markdown(settings: Settings, scores: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return the table of what is there, and what it says of the papers' claims.

    Args:
        settings: what the results depend on.
        scores: metrics by recipe, one mapping a seed.
    """
    head = ["recipe", "what it is", "seeds", *COLUMNS.values()]
    lines = [_row(head), _row(["---"] * len(head))]
    for recipe in recipes_of(settings.base):
        found = scores.get(recipe.name, [])
        cells = [_cell([each[name] for each in found if name in each]) for name in COLUMNS]
        lines.append(_row([recipe.name, recipe.text, str(len(found)), *cells]))
    claims = [_row(["claim", "verdict"]), _row(["---", "---"])]
    names = {recipe.name for recipe in recipes_of(settings.base)}
    claims += [_row([claim.text, claim.verdict(scores)]) for claim in claims_of(names)]
    about = (
        f"{settings.steps} steps of {settings.batch_size} halls at a learning rate of {settings.learning_rate:g} for "
        f"all, from {BASES[settings.base].text}; scored on {settings.evaluation_halls} unseen halls; mean over the "
        "seeds, ± their standard deviation."
    )
    return "\n".join([about, "", *lines, "", *claims, ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{fmean(values):.4f}{spread}"
