"""What the papers claim of their recipes, and what a table says of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

Scores = Mapping[str, Sequence[Mapping[str, float]]]


@dataclass(frozen=True)
class Claim:
    """One recipe is better than another.

    Attributes:
        text: the claim and where it is from.
        better: name of the recipe that is claimed to be better.
        worse: name of the other.
        metric: less is better.
    """

    text: str
    better: str
    worse: str
    metric: str

    def verdict(self, scores: Scores) -> str:
        """Return what the seeds of a table say.

        Reproduced is what every seed of the one side does better than any of the other; not reproduced the reverse;
        anything between is within noise.

        Args:
            scores: metrics by recipe, one mapping a seed.
        """
        first, second = (list(scores.get(name, [])) for name in (self.better, self.worse))
        if not first or not second:
            return "not run"
        a, b = ([each[self.metric] for each in found] for found in (first, second))
        change = fmean(a) / fmean(b) - 1
        figures = f"{fmean(a):.4f} against {fmean(b):.4f}, {100 * change:+.1f} %"
        if min(len(a), len(b)) < 2:
            return f"one seed ({figures})"
        if max(a) < min(b):
            return f"reproduced ({figures})"
        return f"not reproduced ({figures})" if min(a) > max(b) else f"within noise ({figures})"


CLAIMS = (
    Claim("the free scale of E2E-FT is better by least squares", "either_way", "linear", "abs_rel"),
    Claim("log depth beats linear depth, RANSAC (Marigold V2: 5.04 to 4.72)", "log", "linear", "ransac_log_abs_rel"),
    Claim("the same by least squares", "log", "linear", "abs_rel"),
    Claim(
        "the square root of disparity beats linear depth (DepthMaster, KITTI)", "sqrt_disparity", "linear", "abs_rel"
    ),
    Claim("the same by RANSAC", "sqrt_disparity", "linear", "ransac_log_abs_rel"),
    Claim("disparity beats linear depth (Lotus, second version)", "disparity", "linear", "abs_rel"),
    Claim("disparity sharpens edges (Lotus)", "disparity", "linear", "least_squares_see3"),
    Claim("the image latent alone is enough (GenPercept, Lotus)", "image_alone", "linear", "abs_rel"),
    Claim("subtracting from the image latent sharpens edges (Marigold V2)", "residual", "log", "least_squares_see3"),
    Claim("the detail preserver sharpens edges (Lotus)", "lotus_d", "latents", "least_squares_see3"),
    Claim("the detail preserver lowers AbsRel (Lotus)", "lotus_d", "latents", "abs_rel"),
    Claim("a loss that forgives scale and shift beats one that does not (E2E-FT)", "log", "plain", "abs_rel"),
    Claim("losses on gradients sharpen edges (Marigold V2)", "sharp", "plain", "least_squares_see3"),
    Claim("SinkLoss sharpens edges (Marigold V2)", "sink", "plain", "least_squares_see3"),
    Claim("a loss on pixels beats one between latents (E2E-FT)", "disparity", "latents", "abs_rel"),
    Claim("depth gains from normals beside it (GeoWizard)", "joint", "linear", "abs_rel"),
    Claim("normals gain from depth beside them (GeoWizard)", "joint", "normals", "mean_angle_deg"),
    Claim("seeing each other beats a switch: normals (GeoWizard)", "joint", "switch", "mean_angle_deg"),
)


def claims_of(names: Collection[str]) -> list[Claim]:
    """Return the claims on recipes that are compared.

    Args:
        names: of the recipes.
    """
    return [claim for claim in CLAIMS if claim.better in names and claim.worse in names]
