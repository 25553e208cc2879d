import torch

from geometry.alignment import align_scale_shift
from geometry.modalities import Depth, Modality, Normals

MARIGOLD_SPAN = (-1.0, 1.0)


def combined_depth(members):
    """Members in [0, 1], as users get depth, combined and published."""
    depth = Depth()
    return depth.publish(depth.ensemble(2 * members - 1))


def test_depth_that_differs_by_scale_and_shift_alone_is_recovered():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 1, 24, 32, generator=generator)
    scale = 0.4 + 0.3 * torch.rand(5, 2, 1, 1, 1, generator=generator)
    shift = 0.3 * torch.rand(5, 2, 1, 1, 1, generator=generator)
    combined = combined_depth(scale * truth + shift)
    fit, offset = align_scale_shift(combined, truth, torch.ones_like(truth, dtype=torch.bool))
    aligned = fit[:, None, None, None] * combined + offset[:, None, None, None]
    assert (aligned - truth).abs().max() < 1e-3
    assert combined.amin(dim=(1, 2, 3)).tolist() == [0, 0]
    assert combined.amax(dim=(1, 2, 3)).tolist() == [1, 1]


def test_one_wild_member_does_not_move_the_depth_of_the_others():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 1, 24, 32, generator=generator)
    noisy = truth + 0.02 * torch.randn(5, 1, 1, 24, 32, generator=generator)
    wild = torch.cat([noisy.clamp(0, 1)[:4], torch.rand(1, 1, 1, 24, 32, generator=generator)])
    correlation = torch.corrcoef(torch.stack([combined_depth(wild).flatten(), truth.flatten()]))[0, 1]
    assert correlation > 0.99


def test_combined_depth_spans_the_range_of_predictions():
    combined = Depth().ensemble(torch.rand(3, 2, 1, 8, 8) * 2 - 1)
    assert combined.shape == (2, 1, 8, 8)
    assert (combined.min(), combined.max()) == MARIGOLD_SPAN


def test_normals_are_the_member_closest_to_the_mean_direction():
    left, middle, right = (torch.tensor(v) for v in ([-0.6, 0.0, 0.8], [0.0, 0.0, 1.0], [0.6, 0.0, 0.8]))
    members = torch.stack([left, middle, right])[:, None, :, None, None].expand(3, 2, 3, 4, 4)
    for frame in ("opengl", "dsine"):
        assert torch.equal(Normals(frame).ensemble(members), members[1])


def test_images_of_a_batch_do_not_mix():
    members = torch.rand(3, 2, 1, 8, 8)
    together, alone = combined_depth(members), combined_depth(members[:, 1:])
    assert torch.equal(together[1:], alone)


def test_other_modalities_combine_by_the_median_which_a_wild_member_does_not_move():
    members = torch.tensor([0.2, 0.3, 9.0]).reshape(3, 1, 1, 1, 1).expand(3, 2, 3, 4, 4)
    assert torch.equal(Modality.ensemble(Depth(), members), members[1])
