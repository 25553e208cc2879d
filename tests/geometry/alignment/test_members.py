import torch

from geometry.alignment.members import align_members
from geometry.modalities import Depth, Normals


def test_members_that_differ_by_scale_and_shift_have_no_spread():
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(2, 1, 20, 30, generator=generator)
    members = torch.stack([first, 0.3 * first + 0.4, 2 * first - 1])
    assert float(Depth().spread(members).max()) < 1e-6
    assert torch.equal(align_members(members)[0], first)


def test_what_is_left_after_alignment_is_the_standard_deviation():
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(1, 1, 200, 300, generator=generator)
    noise = 0.02 * torch.randn(5, *first.shape, generator=generator)
    noise[:, ..., :150] = 0
    spread = Depth().spread(torch.stack([first, *((0.5 + 0.1 * k) * (first + noise[k]) + 0.1 * k for k in range(5))]))
    # Six members, one of them without noise: their variance is 5/6 of that of the noise.
    assert abs(float(spread[..., 160:].square().mean().sqrt()) / (0.02 * (5 / 6) ** 0.5) - 1) < 0.02
    assert float(spread[..., :140].max()) < 1e-3


def test_a_member_upside_down_or_flat_is_only_shifted():
    first = torch.linspace(0, 1, 100).reshape(1, 1, 10, 10)
    upside_down, flat = align_members(torch.stack([first, 1 - first, torch.full_like(first, 0.2)]))[1:]
    assert torch.allclose(upside_down, 1 - first) and torch.allclose(flat, torch.full_like(first, 0.5))


def test_the_spread_of_normals_is_an_angle():
    tilted = [torch.tensor([x, 0.0, 1.0]) / (x * x + 1) ** 0.5 for x in (-0.1, 0.1)]
    members = torch.stack([t[None, :, None, None].expand(1, 3, 4, 4) for t in tilted])
    expected = 2**0.5 * torch.rad2deg(torch.atan(torch.tensor(0.1)))
    assert torch.allclose(Normals().spread(members), expected.expand(1, 1, 4, 4), rtol=1e-4)
