"""The resolution that a model was trained at goes with it: into checkpoint, predictions and exports."""

import json
import warnings

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

import train
from geometry.errors import InputError
from lightning_modules import Normals, SingleStepEstimator
from lightning_modules.inference import Predictor, load_model
from lightning_modules.networks.stable_diffusion import StableDiffusion
from lightning_modules.trained_on import concern, describe_training, read_record
from tests.helpers.tiny import TinyData, build_base
from tests.lightning_modules.inference.runs import make_run, photo

RECORD = {
    "processing_res": 96,
    "image_sizes": {"rooms": (64, 96), "streets": (64, 224)},
    "modality": "depth",
    "frame": None,
    "value_range": (0.0, 1.0),
}


def mark(run, **changes):
    """Let a checkpoint say what it was trained on."""
    file = run / "checkpoints/last.ckpt"
    torch.save(torch.load(file, weights_only=True) | {"trained_on": RECORD | changes}, file)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return mark(make_run(tmp_path_factory.mktemp("run")))


def test_a_fit_writes_into_its_checkpoint_what_it_trains_on(tmp_path):
    network = StableDiffusion(str(build_base(tmp_path / "base")))
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(SingleStepEstimator(network, Normals(frame="dsine")), TinyData(size=16))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    found = torch.load(tmp_path / "a.ckpt", weights_only=True)["trained_on"]
    assert found == {
        "processing_res": 16,
        "image_sizes": {"indoor": (16, 16), "outdoor": (16, 16)},
        "modality": "normals",
        "frame": "dsine",
        "value_range": (-1.0, 1.0),
    }


def test_the_data_set_with_the_largest_weight_says_which_resolution_is_right():
    trained = describe_training({"rooms": (480, 640), "streets": (352, 1216)}, [Normals().modality])
    assert trained.processing_res == 640 and trained.sizes_text() == "480x640 and 352x1216 pixels"


def test_images_are_seen_at_the_training_resolution_unless_another_is_chosen(run, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor = Predictor.load(run, device="cpu")
    assert predictor.processing_res == 96 and predictor.network_size(90, 120) == (72, 96)
    from PIL import Image

    Image.fromarray(photo()).save(tmp_path / "a.png")
    train.main(["predict", str(tmp_path / "a.png"), "--ckpt_path", str(run), "--output", str(tmp_path / "out")])
    assert "seen at 96 pixels (trained at 64x96 and 64x224 pixels)" in capsys.readouterr().out


@pytest.mark.parametrize(("chosen", "is_far"), [(64, False), (96, False), (144, False), (145, True), (63, True)])
def test_a_resolution_far_from_the_training_is_warned_of(run, chosen, is_far):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        Predictor.load(run, processing_res=chosen, device="cpu")
    told = [str(warning.message) for warning in heard if "far from that of the training" in str(warning.message)]
    assert len(told) == is_far


def test_a_checkpoint_of_before_is_seen_at_768_and_that_is_said(tmp_path):
    run = make_run(tmp_path)
    with pytest.warns(UserWarning, match=r"does not say at which size .* seen at 768 pixels"):
        predictor = Predictor.load(run, device="cpu")
    assert predictor.processing_res == 768
    assert concern(64, predictor.trained_on) == ""


def test_exports_hold_it_and_stock_diffusers_takes_it(run, tmp_path):
    from lightning_modules.export import ExportOptions, export_model

    export_model(load_model(run), ExportOptions(tmp_path / "out"))
    assert json.loads((tmp_path / "out/model_index.json").read_text())["default_processing_resolution"] == 96
    assert json.loads((tmp_path / "out/onestep.json").read_text())["trained_on"]["image_sizes"]["rooms"] == [64, 96]
    assert "**96**" in (tmp_path / "out/README.md").read_text()
    back = load_model(tmp_path / "out").estimator.trained_on
    assert back == load_model(run).estimator.trained_on and Predictor.load(tmp_path / "out").processing_res == 96


def test_weights_are_not_used_for_another_frame_than_they_were_trained_in(tmp_path):
    run = mark(make_run(tmp_path, task="Normals"), modality="normals", frame="dsine", value_range=(-1.0, 1.0))
    with pytest.raises(InputError, match=r"trained to predict normals in the frame dsine, .* in the frame opengl"):
        load_model(run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["init_args"]["task"]["init_args"] = {"frame": "dsine"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert load_model(run).estimator.trained_on.frame == "dsine"


@pytest.mark.parametrize(
    "record", [{}, {"processing_res": "96"}, RECORD | {"processing_res": -1}, RECORD | {"image_sizes": {"a": [1]}}]
)
def test_a_record_that_is_none_is_refused_in_one_line(record):
    with pytest.raises(InputError, match=r"last\.ckpt: trained_on: "):
        read_record(record, "last.ckpt")
