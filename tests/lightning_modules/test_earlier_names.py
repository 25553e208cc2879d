"""A run's config.yaml names classes by their paths: those of earlier runs go on."""

import pytest
from jsonargparse import ArgumentParser, Namespace

from geometry.errors import InputError
from lightning_modules.evaluation.callback import Evaluation
from lightning_modules.losses import Loss
from lightning_modules.metrics import GeometryMetric

# Every path outside of today's packages that a shipped configuration has had, and that of each other class.
LOSSES = (
    "loss_terms.GradientMatching",
    "loss_terms.LatentConsistency",
    "normalized_losses.HuberGradient",
    "normalized_losses.NormalizedGradientL1",
    "normalized_losses.NormalizedL1",
    "normalized_losses.NormalizedMSE",
    "frequency_losses.FourierLoss",
    "frequency_losses.WaveletLoss",
    "feature_alignment.FeatureAlignment",
    "feature_alignment.FeatureMatching",
    "sink_loss.SinkLoss",
    "curriculum.Scheduled",
)
METRICS = ("metric_base.MeanError", "albedo_metrics.AlbedoError")


@pytest.mark.parametrize(
    ("base", "path"), [*((Loss, path) for path in LOSSES), *((GeometryMetric, path) for path in METRICS)]
)
def test_a_class_path_of_an_earlier_run_is_the_class_of_today_and_is_written_anew(base, path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=type[base])
    taken = parser.parse_object({"it": f"lightning_modules.{path}"})
    package = base.__module__.rpartition(".")[0]
    assert taken == Namespace(it=getattr(__import__(package, fromlist=["x"]), path.rpartition(".")[2]))
    assert f"{package}.{path.rpartition('.')[2]}" in parser.dump(taken)


def test_reading_an_image_goes_by_its_earlier_name_too():
    from lightning_modules.inference.image_inputs import read_image
    from lightning_modules.inference.pictures import read_picture

    assert read_picture is read_image


def test_the_former_name_of_an_option_of_the_evaluation_is_taken_and_the_new_one_said():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Evaluation, "evaluation")
    with pytest.warns(UserWarning, match=r"evaluation.num_pictures is evaluation.num_images now"):
        former = parser.instantiate(parser.parse_object({"evaluation": {"num_pictures": 7}})).evaluation
    assert former.num_images == parser.parse_args(["--evaluation.num_images=7"]).evaluation.num_images
    with pytest.raises(InputError, match=r"evaluation.num_images must be at least 0, not -1"):
        Evaluation(num_images=-1)
