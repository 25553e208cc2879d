import torch

from lightning_modules.inference.tiling import align_to, blend_tiles, tile_places


def test_tiles_cover_every_pixel_overlap_enough_and_are_no_larger_than_allowed():
    for height, width in ((10, 10), (64, 100), (65, 64), (300, 1)):
        covered = torch.zeros(height, width, dtype=torch.int)
        for rows, columns in tile_places(height, width, 64, 16):
            assert rows.stop - rows.start == min(height, 64) and columns.stop - columns.start == min(width, 64)
            covered[rows, columns] += 1
        assert covered.min() >= 1
        if width > 64:
            assert covered[0, width - 64 : 64].min() >= 2


def test_blending_gives_back_what_all_tiles_agree_on():
    image = torch.rand(3, 90, 130)
    blended = blend_tiles(image, 48, 12, lambda part, _: part * 2 - 1)
    assert torch.allclose(blended, image * 2 - 1, atol=1e-6)


def test_no_seam_remains_where_tiles_disagree():
    image = torch.zeros(3, 64, 256)
    steps = iter(torch.rand(100))
    blended = blend_tiles(image, 64, 16, lambda part, _: torch.full((1, *part.shape[1:]), next(steps).item()))
    assert blended.std() > 0.05, "the tiles differ"
    assert blended.diff(dim=2).abs().max() < 1.5 / 16, "but the change is spread over the overlap"


def test_tiles_of_unknown_scale_and_shift_come_together_as_one_depth():
    depth = torch.linspace(0, 1, 200).repeat(80, 1)[None] + 0.1 * torch.rand(1, 80, 200)
    generator = torch.Generator().manual_seed(0)

    def answer(part, place):
        scale, shift = 0.2 + torch.rand(2, generator=generator)
        return align_to(depth[(..., *place)] * scale + shift, depth[(..., *place)])

    assert torch.allclose(blend_tiles(torch.zeros(3, 80, 200), 64, 16, answer), depth, atol=1e-4)


def test_a_flat_or_inverted_tile_takes_the_level_of_its_place_and_stays_finite():
    guide = torch.linspace(0.2, 0.4, 100).reshape(1, 10, 10)
    assert torch.allclose(align_to(torch.zeros(1, 10, 10), guide), guide.mean().expand(1, 10, 10), atol=1e-6)
    inverted = align_to(1 - guide, guide)
    assert torch.allclose(inverted.mean(), guide.mean(), atol=1e-6) and inverted[0, 0, 0] > inverted[0, 9, 9]
