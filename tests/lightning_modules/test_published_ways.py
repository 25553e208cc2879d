"""Normals as published programs compute them: clipped, from one member, on images with a colour cast."""

import numpy as np
import pytest
import torch
import yaml
from diffusers import MarigoldNormalsPipeline

from datamodules import Benchmarks
from datamodules.benchmarks.loader import cast_colors
from geometry.errors import InputError
from geometry.normals import closest_member, convert_frame
from lightning_modules import Normals
from tests.helpers.benchmark_archives import write_normals
from tests.test_configs import ROOT


def unit(values, dim):
    return values / values.norm(dim=dim, keepdim=True)


def members(seed=0, number=4):
    """Predictions around one direction per pixel, each further off than the one before, in another order."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(1, 2, 3, 5, 6, generator=generator).abs()
    offsets = torch.tensor([0.6, 0.1, 0.8, 0.4])[:number].view(-1, 1, 1, 1, 1)
    return unit(mean + offsets * torch.randn(number, 2, 3, 5, 6, generator=generator), 2)


def test_clipped_normals_are_those_of_diffusers_and_unclipped_ones_are_not():
    decoded = 2 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    stock = MarigoldNormalsPipeline.normalize_normals(decoded.clip(-1, 1))
    assert torch.allclose(Normals(clip_decoded=True).predict(decoded), stock, atol=1e-4)
    angles = torch.rad2deg(torch.acos((Normals().predict(decoded) * stock).sum(1).clamp(-1, 1)))
    assert angles.max() > 5


@pytest.mark.parametrize("frame", ["opengl", "dsine"])
def test_an_ensemble_by_member_is_one_whole_prediction_and_by_pixel_is_that_of_diffusers(frame):
    found = members()
    combined = Normals(frame=frame, ensemble_by="member").ensemble(found)
    for image in range(2):
        angles = []
        own = torch.stack([convert_frame(each[image], "opengl", frame) for each in found])
        phi = np.mean([np.arctan2(each[1].numpy(), each[0].numpy()) for each in own], axis=0)
        theta = np.mean(
            [np.arctan2(np.hypot(each[0].numpy(), each[1].numpy()), each[2].numpy()) for each in own], axis=0
        )
        mean = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
        angles = [np.arccos(np.clip((mean * each.numpy()).sum(0), -0.999, 0.999)).sum() for each in own]
        assert torch.equal(combined[image], found[int(np.argmin(angles)), image])
    by_pixel = Normals(frame=frame).ensemble(found)
    assert torch.equal(by_pixel[:1], MarigoldNormalsPipeline.ensemble_normals(found[:, 0], False)[0])
    assert not torch.equal(by_pixel, combined)
    assert closest_member(found[:1]).tolist() == [0, 0]


def test_there_is_no_other_way_to_combine():
    with pytest.raises(InputError, match=r"no task\.ensemble_by 'mean'; choose one of pixel, member"):
        Normals(ensemble_by="mean")


def test_the_colour_cast_of_the_released_evaluation_is_an_option(tmp_path):
    full = np.zeros((2, 4, 3), np.uint8)
    full[1] = 255
    cast = cast_colors(full)
    assert cast[0, 0].tolist() == [0, 4, 16] and cast[1, 0].tolist() == [234, 243, 255]

    write_normals(tmp_path, "scannet", num_samples=1)
    images = {}
    for color_cast in (False, True):
        data = Benchmarks(str(tmp_path), modalities=["normals"], num_workers=0, color_cast=color_cast)
        data.setup("test")
        images[color_cast] = next(iter(data.test_dataloader()[0])).image
        assert data.describe_test("scannet").get("color_cast", False) == color_cast
    plain = ((images[False][0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert torch.equal(images[True][0], torch.from_numpy(cast_colors(plain)).permute(2, 0, 1).float() / 255 * 2 - 1)
    with pytest.raises(InputError, match="color_cast repeats an evaluation of normals"):
        Benchmarks(str(tmp_path), color_cast=True).setup("test")


def test_the_recipes_score_a_checkpoint_as_its_authors_do():
    found = {}
    for name in ("benchmark_diffusion_depth", "benchmark_diffusion_normals", "benchmark_marigold_normals"):
        model = yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text())["model"]["init_args"]
        task = model["task"].get("init_args", {})
        found[name] = (model["sampling"]["end"], task.get("ensemble_by"), task.get("clip_decoded", False))
    assert found == {
        "benchmark_diffusion_depth": ("clean", None, False),
        "benchmark_diffusion_normals": ("clean", "member", False),
        "benchmark_marigold_normals": ("scheduler", "pixel", True),
    }
