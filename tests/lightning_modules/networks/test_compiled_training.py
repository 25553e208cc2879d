"""Training with torch.compile's own backend from the first step to the export, as a user does it; takes minutes."""

import re

import pytest
import torch
import yaml
from torch.utils.data import DataLoader

import train
from tests.helpers.runs import curves, last
from tests.helpers.tiny import TinyData, build_base, make_batch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

NETWORK = "--model.network."


class TwoSizes(TinyData):
    """Training batches that take turns between two image sizes, and validation on the first."""

    def train_dataloader(self):
        sizes = ((16, 16), (16, 24))
        return DataLoader([make_batch(height=h, width=w, seed=1000 + w) for h, w in sizes] * 4, None)


def write_config(folder):
    network = {"class_path": "lightning_modules.StableDiffusion", "init_args": {"base": str(folder / "base")}}
    estimator = {"network": network, "task": {"class_path": "lightning_modules.Depth"}, "warmup_steps": 1}
    content = {
        "name": "tiny",
        "model": {"class_path": "lightning_modules.SingleStepEstimator", "init_args": estimator},
        "data": {"class_path": f"{__name__}.TwoSizes", "init_args": {"size": 16}},
        "ema": {"decay": 0.5},
        "trainer": {"accelerator": "cpu", "max_steps": 3, "log_every_n_steps": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "config.yaml")


@pytest.mark.parametrize("regions", ["whole", "blocks"])
def test_a_compiled_run_learns_resumes_validates_and_exports_what_a_plain_one_does(tmp_path, capsys, regions):
    build_base(tmp_path / "base", vae_factor=2)
    config = write_config(tmp_path)
    compiled = [f"{NETWORK}compile={{dynamic: false, regions: {regions}}}"]
    runs = [tmp_path / "compiled", tmp_path / "plain"]
    for folder, options in zip(runs, (compiled, []), strict=True):
        train.main(["fit", "--config", config, f"--trainer.default_root_dir={folder}", *options])

    ours, theirs = map(curves, runs)
    assert len(theirs["train/loss"]) == 3, "two image sizes, three steps"
    for curve in ("train/loss", "train/grad_norm", "train/zero_gradient_steps", "val/indoor/abs_rel"):
        assert ours[curve].keys() == theirs[curve].keys()
        for step, values in theirs[curve].items():
            assert ours[curve][step] == pytest.approx(values, rel=1e-3), (curve, step)
    assert all(value > 0 for values in ours["train/grad_norm"].values() for value in values)
    first, second = map(last, runs)
    for key in ("state_dict", "ema_state_dict"):
        assert first[key].keys() == second[key].keys()
        for name, weight in second[key].items():
            # AdamW makes a whole step of a gradient that is nothing but rounding: 3e-5 each.
            assert torch.allclose(first[key][name], weight, atol=2e-4, rtol=0), name

    options = ["--config", config, f"--trainer.default_root_dir={runs[0]}", *compiled, "--ckpt_path=last"]
    train.main(["fit", *options, "--trainer.max_steps=4"])
    assert last(runs[0])["global_step"] == 4
    capsys.readouterr()
    train.main(["validate", *options])
    assert re.search(r"abs_rel +0\.\d{4}", capsys.readouterr().out)
    export = tmp_path / "export"
    train.main(["export", "--ckpt_path", str(runs[0] / "tiny"), "--output", str(export)])
    difference = re.search(r"Largest difference .* predictions: (\S+), mean", capsys.readouterr().out)
    assert difference and float(difference[1]) < 1e-4
