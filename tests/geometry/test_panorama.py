import pytest
import torch

from geometry.panorama import (
    panorama_at,
    panorama_directions,
    places_in_view,
    spread_directions,
    values_at,
    view_directions,
    view_rotations,
)


def test_the_centre_looks_ahead_the_right_half_right_and_the_top_up():
    directions = panorama_directions(90, 180)
    assert torch.allclose(directions.norm(dim=0), torch.ones(90, 180, dtype=torch.float64))
    for (row, column), expected in {
        (45, 90): (0, 0, -1),
        (45, 135): (1, 0, 0),
        (0, 90): (0, 1, 0),
        (45, 0): (0, 0, 1),
    }.items():
        assert torch.allclose(directions[:, row, column], torch.tensor(expected).double(), atol=0.05)
    strip = panorama_directions(90, 180, slice(10, 20))
    assert torch.equal(strip, directions[:, 10:20])


def test_the_views_see_every_direction_and_their_rotations_are_rotations():
    rotations = view_rotations()
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3).double().expand(len(rotations), 3, 3), atol=1e-12)
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(len(rotations)).double())
    directions = spread_directions(5000)
    counts = sum(places_in_view(directions, rotation)[2].int() for rotation in rotations)
    assert int(counts.min()) >= 1 and float((counts >= 2).double().mean()) > 0.9


@pytest.mark.parametrize("number", [0, 4, 9, 18])
def test_a_view_of_a_panorama_shows_what_lies_in_its_directions(number):
    panorama = panorama_directions(256, 512)
    directions = view_directions(view_rotations()[number], 40)
    found = panorama_at(panorama, directions)
    assert float((found - directions).abs().max()) < 0.01, "across the left and right edge, too"
    places, length, seen = places_in_view(directions, view_rotations()[number])
    assert bool(seen.all()) and float(length.min()) >= 1 and float(length.max()) < 3**0.5
    assert torch.allclose(values_at(directions, places), directions, atol=1e-9)
