import numpy as np
import pytest
import torch
from PIL import Image

from geometry.errors import InputError
from lightning_modules.inference import Predictor, load_model
from tests.lightning_modules.inference.runs import make_run, photo

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), ema=True)


def test_a_file_a_pillow_image_an_array_and_a_tensor_give_the_same_depth(run, tmp_path):
    image = photo()
    Image.fromarray(image).save(tmp_path / "a.png")
    predictor = Predictor.load(run, processing_res=32)
    expected = predictor(image)
    assert expected.shape == (45, 61) and expected.dtype == np.float32
    assert 0 <= expected.min() < expected.max() <= 1
    for same in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image)):
        assert np.array_equal(predictor(same), expected)
    tensor = torch.from_numpy(image).movedim(-1, 0) / 255
    for same in (tensor, image / np.float32(255)):  # but for rounding before the network, which enlarges it
        assert np.abs(predictor(same) - expected).max() < 1e-5


def test_the_depth_is_the_one_that_validation_measures(run):
    model = load_model(run)
    image = photo(32, 48)
    batch = torch.from_numpy(image).movedim(-1, 0)[None] / 127.5 - 1
    with torch.no_grad():
        expected = (model.estimator(batch)[0, 0] + 1) / 2
    assert np.abs(Predictor(model.estimator, processing_res=0)(image) - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize("task", ["Depth", "Normals"])
def test_an_image_too_large_for_one_pass_is_put_together_from_tiles(tmp_path, task):
    run = make_run(tmp_path, task)
    tiled = Predictor.load(run, processing_res=0, tile_size=32)
    image = photo(60, 150)
    assert tiled.needs_tiles(60, 150) and not tiled.needs_tiles(30, 30)
    prediction = tiled(image)
    assert prediction.shape[:2] == (60, 150) and np.isfinite(prediction).all()
    # The corner belongs to the first tile alone: the same normals as by itself, the same depth but for scale and shift.
    corner, alone = (found[:14, :24].ravel() for found in (prediction, tiled(image[:32, :32])))
    if task == "Normals":
        assert np.abs(corner - alone).max() < 1e-4
    else:
        assert np.corrcoef(corner, alone)[0, 1] > 0.999


def test_the_moving_average_is_taken_where_there_is_one_and_can_be_left(run):
    last, average, automatic = (
        Predictor.load(run, ema=ema, processing_res=0)(photo()) for ema in ("false", "true", "auto")
    )
    assert np.array_equal(average, automatic) and np.abs(average - last).max() > 1e-3


def test_a_checkpoint_is_found_by_file_run_or_name_and_by_last(run, tmp_path, monkeypatch):
    file = run / "checkpoints/last.ckpt"
    for source in (file, run, run.parent):
        assert load_model(source).source == str(file)
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="there is no configuration"):
        load_model(copy)
    assert load_model(copy, [run / "config.yaml"]).step == 7
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/tiny").symlink_to(run.parent)
    monkeypatch.chdir(tmp_path)
    assert load_model("last", [run / "config.yaml"]).step == 7


def test_a_later_configuration_overrides_single_values_and_the_environment_is_read(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_BASE", str(run.parent.parent / "base"))
    other = tmp_path / "other.yaml"
    other.write_text("model: {init_args: {network: {init_args: {base: '${oc.env:MY_BASE}', noise: gaussian}}}}")
    model = load_model(run, [run / "config.yaml", other])
    assert model.estimator.network.noise == "gaussian" and model.base == str(run.parent.parent / "base")


def test_weights_that_are_not_finite_are_refused(run, tmp_path):
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    next(iter(checkpoint["state_dict"].values())).fill_(torch.nan)
    torch.save({"state_dict": checkpoint["state_dict"]}, tmp_path / "nan.ckpt")
    with pytest.raises(InputError, match="not finite"):
        load_model(tmp_path / "nan.ckpt", [run / "config.yaml"])
