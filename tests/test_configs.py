"""Every shipped configuration does what its first comment promises, on small data and a small base."""

from pathlib import Path

import pytest
import yaml

import train
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.run import prepare_dataset
from datamodules.sources.hypersim import Hypersim
from datamodules.sources.virtual_kitti import VirtualKitti
from datamodules.synthetic import SyntheticHypersim, SyntheticVirtualKitti

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(file for file in (ROOT / "configs").glob("*.yaml") if not file.stem.startswith("benchmark_"))
BASE = ROOT / "checkpoints" / "tiny-stable-diffusion"


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """Hypersim and Virtual KITTI 2 in miniature, prepared under the names that the configurations use."""
    folder = tmp_path_factory.mktemp("data")
    SyntheticHypersim(size=(48, 64), frames_per_scene=1).write(folder / "raw", 6, progress=False)
    SyntheticVirtualKitti(size=(40, 144), conditions=("fog",)).write(folder / "raw", 5, progress=False)
    hypersim, kitti = Hypersim(folder / "raw", (48, 64)), VirtualKitti(folder / "raw", (32, 128))
    for name, raw in (("hypersim", hypersim), ("virtual_kitti", kitti)):
        prepare_dataset(raw, folder / name, ShardOptions(samples_per_shard=2), progress=False)
    return folder


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_says_how_to_run_it_and_can_be_printed(config, capsys):
    first = config.read_text().splitlines()[0]
    assert first.startswith("#") and f"python train.py fit --config configs/{config.name}" in first
    with pytest.raises(SystemExit) as leaving:
        train.main(["fit", "--config", str(config), "--print_config"])
    assert leaving.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["name"] == config.stem, "runs of two recipes must not share a folder"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_trains_and_validates_on_the_tiny_base(config, data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(data_root))
    monkeypatch.chdir(ROOT)
    small = {
        "--model.init_args.network.init_args.base": str(BASE),
        "--trainer.default_root_dir": str(tmp_path),
        "--trainer.accelerator": "cpu",
        "--trainer.precision": "32-true",
        "--trainer.max_steps": "1",
        "--trainer.accumulate_grad_batches": "2",
        "--trainer.val_check_interval": "1",
        "--data.init_args.num_workers": "0",
    }
    if "demo" in config.stem:
        small |= {"--data.init_args.cache": str(tmp_path / "cache")}
        small |= {"--data.init_args.rooms": "20", "--data.init_args.streets": "0"}
    train.main(["fit", "--config", str(config), *(word for pair in small.items() for word in pair)])
    assert list(tmp_path.glob(f"{config.stem}/version_0/checkpoints/last.ckpt"))
