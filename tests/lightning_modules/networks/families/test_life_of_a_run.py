"""A base of each family, from the hub's layout to predictions: trained, killed, resumed, scored."""

import shutil

import numpy as np
import pytest

from lightning_modules.inference.loading import load_model
from lightning_modules.inference.predictor import Predictor
from lightning_modules.write_conditioning import write
from tests.helpers import runs
from tests.tiny_bases import KINDS, write_base

pytestmark = pytest.mark.filterwarnings("ignore")
runs.start_server()

ADAPTERS = {"lora": {"rank": 2}}
# Between them, every input mode, and training of all weights, of adapters, and of adapters over 4 bits.
OPTIONS = {
    "stable_diffusion_3": {},
    "stable_diffusion_3_5": {"input_mode": "image", "checkpointing": True},
    "flux": {"input_mode": "residual", "timestep": 499.0, **ADAPTERS},
    "flux_kontext": {"input_mode": "sequence", "quantization": "nf4", **ADAPTERS},
    "qwen_image": {"input_mode": "residual", "timestep": 499.0, "decoder_checkpointing": True, **ADAPTERS},
    "qwen_image_edit_plus": {"input_mode": "sequence", "checkpointing": True, "quantization": "nf4", **ADAPTERS},
    "stable_diffusion_xl": {"noise": "gaussian"},
    "z_image": {"input_mode": "residual", "timestep": 499.0},
    "flux_2_klein": {"input_mode": "sequence", **ADAPTERS},
}


def without_encoders(base):
    """A small file stands for the encoders, as where they are too large to be had."""
    write(str(base), base / "conditioning.safetensors")
    for folder in base.glob("tokenizer*"), base.glob("text_encoder*"), base.glob("processor"):
        for each in folder:
            shutil.rmtree(each)
    return base


def test_every_kind_of_base_is_tried():
    assert OPTIONS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_end_and_is_validated_and_predicts(tmp_path, kind):
    options = {"base": str(without_encoders(write_base(tmp_path / "base", kind))), **OPTIONS[kind]}
    network = {"class_path": "lightning_modules.PretrainedNetwork", "init_args": options}
    config = runs.prepare(tmp_path / "data", 3, network)
    every_step = "--checkpoints.every_n_steps=1"
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert runs.fit(undisturbed, config, every_step) == [0], runs.log_of(undisturbed)
    assert runs.fit(killed, config, every_step, *runs.kill_at(5)) == [-9], runs.log_of(killed)
    assert runs.fit(killed, config, every_step) == [0], runs.log_of(killed)
    runs.assert_same_end(killed, undisturbed)
    trained = {name.split(".")[1] for name in runs.last(killed)["state_dict"]}
    assert len(trained) == 1, "what is frozen is in no checkpoint"

    assert runs.finish(runs.start(killed, config, command="validate"), killed) == [0], runs.log_of(killed)
    assert "abs_rel" in runs.log_of(killed)
    model = load_model(killed / "tiny")
    image = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    prediction = Predictor(model.estimator, processing_res=0, device="cpu")(image)
    assert prediction.shape == (37, 51) and np.isfinite(prediction).all() and prediction.std() > 0
