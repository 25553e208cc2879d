"""What holds for every modality that is registered, and how a new one becomes known."""

import pytest
import torch

from geometry import InputError
from geometry.batch import ANY_VALUE, Target
from geometry.modalities import Depth, Modality, Normals, modality, modality_named, registered

INSTANCES = [Depth(), Depth("log"), Depth("disparity"), Normals(), Normals("dsine")]


class Albedo(Modality):
    """Colour of the surface, as a newcomer would write it: only what has no default."""

    name = "albedo_of_a_test"
    title = "albedo"
    num_channels = 3
    meaning = "albedo"

    def to_image(self, target):
        return torch.where(target.mask, 2 * target.values - 1, 0.0)

    def from_image(self, decoded):
        return decoded.float() / 2 + 0.5

    def colorize(self, values, mask=None, limits=None):
        return values


@pytest.fixture(autouse=True)
def registry_is_left_as_it_was():
    """The class above stays known to the end of the process: no other test may meet it by accident."""
    yield
    modality._REGISTERED.pop("of_a_test", None)


def target_of(kind, seed=0):
    """True values of a modality in two images, a tenth of the pixels unknown."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, 1, 12, 16, generator=generator) > 0.1
    values = torch.randn(2, kind.num_channels, 12, 16, generator=generator)
    values = values.abs() + 1 if kind.num_channels == 1 else torch.nn.functional.normalize(values, dim=1)
    return Target(values * mask, mask)


def test_the_modalities_of_the_package_are_known_by_name():
    assert {"depth": Depth, "normals": Normals}.items() <= registered().items()
    assert modality_named("normals") is Normals


def test_a_class_is_known_by_its_name_as_soon_as_it_is_defined():
    assert modality_named("albedo_of_a_test") is Albedo

    class Later(Albedo):
        name = "of_a_test"

    assert modality_named("of_a_test") is Later and modality_named("albedo_of_a_test") is Albedo


def test_a_step_on_the_way_to_others_is_not_registered():
    before = registered()

    class OtherAlbedo(Albedo):
        """Has no name of its own."""

    class Unfinished(Modality):
        name = "unfinished"

    assert registered() == before and modality_named("albedo_of_a_test") is not OtherAlbedo
    assert "unfinished" not in registered() and Unfinished.name == "unfinished"


def test_an_unknown_name_is_refused_and_the_known_ones_listed():
    with pytest.raises(InputError, match=r"no modality 'dept'; choose from .*depth, .*normals"):
        modality_named("dept")


def test_what_is_registered_cannot_be_changed_from_outside():
    registered().clear()
    assert "depth" in registered()


@pytest.mark.parametrize("kind", INSTANCES, ids=lambda kind: kind.describe_published() + (kind.frame or ""))
class TestEveryModality:
    def test_truth_survives_the_way_to_an_image_and_back(self, kind):
        target = target_of(kind)
        image = kind.to_image(target)
        assert image.shape == (2, 3, 12, 16) and image.dtype == torch.float32
        assert image.min() >= -1 and image.max() <= 1
        aligned = kind.align(kind.from_image(image), target)
        # Values beyond the outer quantiles are clamped, and they alone: four per cent.
        error = kind.error(aligned, target)[target.mask]
        assert error.quantile(0.9) < 0.05 if kind.varies_by_image else error.max() < 0.1

    def test_what_is_unknown_leaves_no_trace_in_the_image(self, kind):
        target = target_of(kind)
        poisoned = Target(torch.where(target.mask, target.values, torch.nan), target.mask)
        assert torch.equal(kind.to_image(poisoned), kind.to_image(target))
        assert (kind.to_image(target).masked_select(~target.mask)).unique().numel() == 1

    def test_stored_values_come_back_with_their_mask_and_unknown_as_zero(self, kind):
        target = target_of(kind)
        values, mask = kind.restore(target.values.clone(), (0.5, 100.0) if kind.name == "depth" else ANY_VALUE)
        assert torch.equal(mask, target.mask)
        torch.testing.assert_close(values, target.values)

    def test_published_predictions_lie_in_their_range_and_interpolated_ones_are_made_valid(self, kind):
        low, high = kind.value_range
        published = kind.publish(kind.from_image(3 * torch.randn(2, 3, 12, 16)))
        assert published.shape == (2, kind.num_channels, 12, 16)
        assert published.min() >= low - 1e-6 and published.max() <= high + 1e-6
        between = kind.renormalize((published + published.flip(-1)) / 2)
        again = kind.renormalize(between)
        torch.testing.assert_close(again, between)

    def test_mirroring_twice_changes_nothing(self, kind):
        values = target_of(kind).values
        twice = values.clone()
        kind.mirror_(twice)
        kind.mirror_(twice)
        assert torch.equal(twice, values)

    def test_a_perfect_prediction_has_no_error_and_looks_like_the_truth(self, kind):
        target = target_of(kind)
        perfect = 3 * kind.as_predicted(target).values - 2 if kind.varies_by_image else target.values
        shown, truth, _ = kind.visualize(perfect, target)
        error = kind.error(kind.align(perfect, target), target)
        assert error.shape == (2, 1, 12, 16) and error[target.mask].max() < 0.03
        for image in (shown, truth):
            assert image.shape == (2, 3, 12, 16) and 0 <= image.min() and image.max() <= 1
        known = target.mask.expand_as(truth)
        assert (shown - truth)[known].abs().max() < 1e-3


class TestDefaults:
    """What a modality gets that replaces only what has no default."""

    def test_a_pixel_is_known_where_a_channel_is_not_zero_and_all_lie_inside_the_limits(self):
        stored = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.3, 0.0], [0.2, 0.3, 1.5], [0.2, 0.3, 0.4]])
        values, mask = Albedo().restore(stored.T[None, :, :, None].clone(), (0.0, 1.0))
        assert mask.flatten().tolist() == [False, True, False, True]
        assert values[0, :, :, 0].T.tolist() == [
            [0, 0, 0],
            [0, pytest.approx(0.3), 0],
            [0, 0, 0],
            [*stored[3].tolist()],
        ]

    def test_the_error_is_the_mean_absolute_difference_of_the_channels(self):
        truth = Target(torch.zeros(1, 3, 1, 1), torch.ones(1, 1, 1, 1, dtype=torch.bool))
        prediction = torch.tensor([0.1, -0.2, 0.6]).reshape(1, 3, 1, 1)
        assert Albedo().error(prediction, truth).item() == pytest.approx(0.3)
        assert Albedo().align(prediction, truth) is prediction

    def test_published_values_are_clamped_and_exports_leave_the_decoder_alone(self):
        assert Albedo().publish(torch.tensor([-1.0, 0.5, 2.0])).tolist() == [0, 0.5, 1]
        assert Albedo().decoder_factors() is None and Albedo().stock_pipeline is None

    def test_stored_shapes_have_channels_unless_there_is_one(self):
        assert Albedo.stored_shape(4, 6) == (3, 4, 6) and Depth.stored_shape(4, 6) == (4, 6)
