import pytest
import torch

from geometry.batch import ANY_VALUE, Target
from geometry.modalities import Normals


def vectors(*values):
    """Vectors as the pixels of one image (1,3,1,N)."""
    return torch.tensor(values).T.reshape(1, 3, 1, -1)


def listed(image):
    return [pytest.approx(vector, abs=1e-6) for vector in image[0, :, 0].T.tolist()]


def test_vectors_of_about_unit_length_are_normals_and_anything_else_is_unknown():
    stored = vectors([0.0, 0.0, 0.0], [0.0, 0.6, 0.6], [0.0, 0.0, 3.0], [torch.nan, 0.0, 1.0], [0.1, 0.0, 0.2])
    values, mask = Normals().restore(stored.clone(), ANY_VALUE)
    assert mask.flatten().tolist() == [False, True, False, False, False]
    assert values[0, :, 0, 1].norm() == pytest.approx(1, abs=1e-6)
    assert (values[..., [0, 2, 3, 4]] == 0).all()


def test_mirroring_turns_the_x_axis_around_also_in_a_batch_and_in_half_precision():
    for dtype in (torch.float16, torch.float32):
        values = vectors([0.5, 0.25, 0.75]).to(dtype).expand(2, -1, -1, -1).clone()
        Normals().mirror_(values)
        assert values[1].flatten().tolist() == [-0.5, 0.25, 0.75]


@pytest.mark.parametrize(("frame", "red"), [("opengl", 0.6), ("dsine", -0.6)])
def test_the_image_holds_components_in_the_frame_of_the_network_and_zero_where_unknown(frame, red):
    target = Target(vectors([0.6, 0.0, 0.8], [9.0, 9.0, 9.0]), torch.tensor([True, False]).reshape(1, 1, 1, 2))
    image = Normals(frame).to_image(target)
    assert image[0, :, 0].T.tolist() == [[pytest.approx(red), 0, pytest.approx(0.8)], [0, 0, 0]]
    assert listed(Normals(frame).from_image(10 * image))[0] == [0.6, 0.0, 0.8]


def test_the_error_is_the_angle_in_degrees():
    truth = Target(vectors([0.0, 0.0, 1.0], [0.0, 0.0, 1.0]), torch.ones(1, 1, 1, 2, dtype=torch.bool))
    found = Normals().error(vectors([0.0, 1.0, 1.0], [0.0, 0.0, -1.0]), truth)
    assert found.flatten().tolist() == pytest.approx([45, 180], abs=1e-4)


def test_colours_are_the_components_whatever_the_other_pixels_are():
    shown = Normals().colorize(vectors([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]))
    assert shown[0, :, 0].T.tolist() == [[1, 0.5, 0.5], [0.5, 0.5, 1]]
    assert Normals().color_limits(Target(shown, shown > 0)) is None


def test_what_is_published_has_unit_length_and_a_zero_vector_stays_finite():
    published = Normals().publish(vectors([0.0, 0.3, 0.4], [0.0, 0.0, 0.0]))
    assert listed(published) == [[0, 0.6, 0.8], [0, 0, 0]]
    assert listed(Normals().renormalize(vectors([2.0, 0.0, 0.0]))) == [[1, 0, 0]]


def test_factors_of_an_export_bring_the_decoder_to_our_frame_without_changing_a_digit():
    for frame, sign in (("opengl", 1), ("dsine", -1)):
        x, y, z = Normals(frame).decoder_factors()
        assert (x / z, y / z) == (sign, 1) and z.hex().startswith("0x1.0000000000000p")
