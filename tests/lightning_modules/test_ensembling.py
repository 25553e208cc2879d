import pytest
import torch

from geometry.alignment import align_scale_shift
from geometry.batch import GeometryBatch
from geometry.errors import InputError
from lightning_modules import Depth, Normals
from lightning_modules.ensembling import ensemble_depth, ensemble_normals
from lightning_modules.tasks import Task


def test_depth_that_differs_by_scale_and_shift_alone_is_recovered():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 1, 24, 32, generator=generator)
    scale = 0.4 + 0.3 * torch.rand(5, 2, 1, 1, 1, generator=generator)
    shift = 0.3 * torch.rand(5, 2, 1, 1, 1, generator=generator)
    combined = ensemble_depth(scale * truth + shift)
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
    correlation = torch.corrcoef(torch.stack([ensemble_depth(wild).flatten(), truth.flatten()]))[0, 1]
    assert correlation > 0.99


def test_depth_of_the_task_stays_in_its_range():
    members = torch.rand(3, 2, 1, 8, 8) * 2 - 1
    combined = Depth().ensemble(members)
    assert combined.shape == (2, 1, 8, 8)
    assert combined.min() == -1 and combined.max() == 1


def test_normals_are_the_member_closest_to_the_mean_direction():
    left, middle, right = (torch.tensor(v) for v in ([-0.6, 0.0, 0.8], [0.0, 0.0, 1.0], [0.6, 0.0, 0.8]))
    members = torch.stack([left, middle, right])[:, None, :, None, None].expand(3, 2, 3, 4, 4)
    for combined in (ensemble_normals(members), Normals(frame="dsine").ensemble(members)):
        assert torch.equal(combined, members[1])


def test_images_of_a_batch_do_not_mix():
    members = torch.rand(3, 2, 1, 8, 8)
    together, alone = ensemble_depth(members), ensemble_depth(members[:, 1:])
    assert torch.equal(together[1:], alone)


def test_a_task_that_cannot_combine_says_what_to_set():
    class Albedo(Normals):
        target_image = Task.target_image
        ensemble = Task.ensemble

    with pytest.raises(InputError, match="Albedo cannot combine predictions; set ensemble_size to 1"):
        Albedo().ensemble(torch.zeros(2, 1, 3, 4, 4))
    with pytest.raises(InputError, match="Albedo has no picture of the truth"):
        Albedo().target_image(GeometryBatch(image=torch.zeros(1), depth=torch.zeros(1)))
