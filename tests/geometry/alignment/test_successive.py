import pytest
import torch

from geometry.alignment.successive import FrameAligner, fit_symmetric


def test_exact_pairs_are_found_among_those_that_moved():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1000, generator=generator, dtype=torch.float64)
    y = 3 * x - 0.5
    y[:250] = torch.rand(250, generator=generator, dtype=torch.float64) * 5
    assert fit_symmetric(x, y) == pytest.approx((3, -0.5), abs=1e-9)
    assert fit_symmetric(*torch.tensor([[0.0, 1, 2, 3, 9], [1, 3, 5, 7, 0]]).double()) == pytest.approx((2, 1))


def test_the_scale_does_not_shrink_with_noise():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50_000, generator=generator, dtype=torch.float64)
    noisy = [x + 0.5 * torch.randn(50_000, generator=generator, dtype=torch.float64) for _ in range(2)]
    assert fit_symmetric(*noisy, kept_share=1)[0] == pytest.approx(1, abs=0.02)


def test_a_flat_frame_is_shifted_alone():
    flat = torch.full((100,), 0.3, dtype=torch.float64)
    assert fit_symmetric(flat, torch.linspace(0, 1, 100, dtype=torch.float64))[0] == 1


def test_a_frame_is_fitted_to_several_before_it_so_that_one_bad_frame_does_not_spoil_those_after_it():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(40, 50, generator=generator)
    aligner = FrameAligner(window=5)
    for number in range(8):
        frame = torch.rand(40, 50, generator=generator) if number == 5 else truth * (1 + number) + number
        scale, shift = aligner.fit(frame)
        if number != 5:
            assert (scale * (1 + number), scale * number + shift) == pytest.approx((1, 0), abs=1e-6)
