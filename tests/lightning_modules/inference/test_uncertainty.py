"""``predict --uncertainty``: the files beside each prediction, and what they say."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from lightning_modules.inference import Predictor
from lightning_modules.uncertainty.spread import Uncertainty
from lightning_modules.uncertainty.views import FLIP, VIEWS
from tests.lightning_modules.inference.runs import make_run, photo, predict

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("depth"))


@pytest.fixture(scope="module")
def diffusion_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("diffusion"), sampling={"num_steps": 1, "ensemble_size": 1}, in_channels=8)


def test_the_three_files_hold_the_spread_and_the_prediction_stays_as_it_is(run, tmp_path, capsys):
    Image.fromarray(photo()).save(tmp_path / "a.png")
    words = (tmp_path / "a.png", "--ckpt_path", run, "--output")
    assert predict(*words, tmp_path / "plain") == 0
    assert predict(*words, tmp_path / "out", "--uncertainty", "views") == 0
    out = tmp_path / "out"
    assert (out / "a_depth.npy").read_bytes() == (tmp_path / "plain/a_depth.npy").read_bytes()
    spread = np.load(out / "a_depth_uncertainty.npy")
    assert spread.shape == (45, 61) and spread.dtype == np.float32 and 0 < spread.mean() < 1
    exact = cv2.imread(str(out / "a_depth_uncertainty.png"), cv2.IMREAD_UNCHANGED)
    assert exact.dtype == np.uint16 and np.abs(exact / 65535 - spread).max() < 1e-5
    color = cv2.imread(str(out / "a_depth_uncertainty_color.png")).astype(int)
    assert color[spread > np.quantile(spread, 0.9)].mean() < color[spread < np.quantile(spread, 0.1)].mean()
    assert predict(*words, tmp_path / "out", "--uncertainty", "views") == 0
    assert "1 were there already" in capsys.readouterr().out
    (out / "a_depth_uncertainty.png").unlink()
    assert predict(*words, tmp_path / "out", "--uncertainty", "views") == 0
    assert (out / "a_depth_uncertainty.png").is_file()


def test_normals_are_unsure_in_degrees(tmp_path):
    run = make_run(tmp_path / "run", task="Normals")
    Image.fromarray(photo()).save(tmp_path / "a.png")
    assert predict(tmp_path / "a.png", "--ckpt_path", run, "--output", tmp_path, "--uncertainty", "flip") == 0
    spread = np.load(tmp_path / "a_normals_uncertainty.npy")
    exact = cv2.imread(str(tmp_path / "a_normals_uncertainty.png"), cv2.IMREAD_UNCHANGED)
    assert spread.max() > 1 and np.abs(exact / 65535 * 180 - spread).max() < 0.01


@pytest.mark.parametrize("view", [*VIEWS], ids=str)
@pytest.mark.parametrize("kind", ["Depth", "Normals"])
def test_a_network_that_sees_every_pixel_by_itself_is_sure_of_any_view(view, kind):
    from lightning_modules import Depth, Normals

    modality = {"Depth": Depth, "Normals": Normals}[kind]().modality
    ramp = torch.linspace(-0.5, 0.5, 64).expand(1, 1, 40, 64)
    # Direction of a vector that the image holds: mirrored, its x has the other sign, as a real network would say.
    image = torch.cat([ramp, 0.3 * ramp.flip(-1), torch.full_like(ramp, 0.7)], dim=1)

    def network(seen):
        assert seen.shape[-2] % 8 == seen.shape[-1] % 8 == 0
        if kind == "Depth":
            return seen[:, :1]
        found = modality.renormalize(seen)
        is_mirrored = bool(seen[0, 0, 0, 0] > seen[0, 0, 0, -1])
        return found * torch.tensor([-1.0 if is_mirrored else 1, 1, 1])[:, None, None]

    found = view.predict(image, network, modality, 8)
    inside = (..., slice(4, -4), slice(6, -6))
    assert torch.allclose(found[inside], network(image)[inside], atol=0.02)
    if view in FLIP:
        assert torch.allclose(found, network(image), atol=1e-6)


def test_an_ensemble_is_of_predictions_from_different_noise(diffusion_run, tmp_path):
    plain = [Predictor.load(diffusion_run, processing_res=32, seed=seed)(photo()) for seed in (0, 1)]
    assert np.abs(plain[0] - plain[1]).max() > 1e-3
    unsure = Predictor.load(diffusion_run, processing_res=32, uncertainty=Uncertainty("ensemble", 3))
    ((prediction, spread),) = unsure.predict_with_spread([photo()])
    assert np.array_equal(prediction, plain[0]) and spread.mean() > 1e-4
    repeated = unsure.predict_with_spread([photo()])[0][1]
    assert np.array_equal(spread, repeated)


def test_images_in_tiles_and_in_batches_have_a_spread_as_alone(run):
    alone = Predictor.load(run, processing_res=0, uncertainty=Uncertainty("flip"))
    tiled = Predictor.load(run, processing_res=0, tile_size=32, uncertainty=Uncertainty("flip"))
    ((_, spread),) = tiled.predict_with_spread([photo(40, 90)])
    assert spread.shape == (40, 90) and np.isfinite(spread).all() and spread.max() > 0
    pair = alone.predict_with_spread([photo(32, 40, seed) for seed in (0, 1)])
    for seed, (_, together) in enumerate(pair):
        assert np.abs(together - alone.predict_with_spread([photo(32, 40, seed)])[0][1]).max() < 1e-5


@pytest.mark.parametrize("parameterization", ["log", "disparity", "sqrt"])
def test_depth_that_is_not_linear_is_as_unsure_as_its_published_values(tmp_path, parameterization):
    run = make_run(tmp_path, task_options={"parameterization": parameterization})
    unsure = Predictor.load(run, processing_res=32, uncertainty=Uncertainty("flip"))
    ((prediction, spread),) = unsure.predict_with_spread([photo()])
    assert np.array_equal(prediction, Predictor.load(run, processing_res=32)(photo()))
    modality = unsure.modality
    affine = torch.full((1, 1, 2, 2), 0.4)
    published = modality.publish_spread(affine, torch.full_like(affine, 1e-3))
    slope = (modality.from_affine(affine + 1e-3) - modality.from_affine(affine)) / 1e-3
    assert torch.allclose(published, 1e-3 * slope.abs(), rtol=0.01) and 0 < spread.mean() < 1


def test_what_makes_no_sense_is_one_line(run, tmp_path, capsys):
    Image.fromarray(photo()).save(tmp_path / "a.png")
    words = (tmp_path / "a.png", "--ckpt_path", run, "--output", tmp_path / "out")
    for message, *more in (
        ("this one gives every member the same prediction", "--uncertainty", "ensemble"),
        ("--members concerns --uncertainty ensemble alone", "--members", "3"),
        ("2 to 1000 members, got 1", "--uncertainty", "ensemble", "--members", "1"),
    ):
        assert predict(*words, *more) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
