"""Every shipped configuration does what its first comment promises, on small data and a small base."""

from itertools import product
from pathlib import Path

import pytest
import yaml

import train
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.run import prepare_dataset
from datamodules.sources.hypersim import Hypersim
from datamodules.sources.virtual_kitti import VirtualKitti
from lightning_modules.command_line.trainer_commands import OneStepCLI
from synthetic_scenes import SyntheticHypersim, SyntheticVirtualKitti
from tests.helpers.tiny import build_base

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(file for file in (ROOT / "configs").glob("*.yaml") if not file.stem.startswith("benchmark_"))
OVERLAYS = sorted((ROOT / "configs" / "hardware").glob("*.yaml"))
# Recipes for other bases: tests/test_recipes.py has them.
OF_BASES = [config for config in CONFIGS if "PretrainedNetwork" in config.read_text() and "demo" not in config.stem]
RECIPES = [config for config in CONFIGS if not config.stem.startswith("demo") and config not in OF_BASES]
BASE = ROOT / "checkpoints" / "tiny-stable-diffusion"
PAPER_BATCH = 32


def stem(path):
    return path.stem if path else "alone"


def leaves(tree, prefix=""):
    for key, value in tree.items():
        yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]


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


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"), in_channels=8)


@pytest.mark.parametrize("config", CONFIGS, ids=stem)
def test_every_configuration_says_how_to_run_it_and_can_be_printed(config, capsys):
    first = config.read_text().splitlines()[0]
    assert first.startswith("#") and f"onestep fit --config configs/{config.name}" in first
    with pytest.raises(SystemExit) as leaving:
        train.main(["fit", "--config", str(config), "--print_config"])
    assert leaving.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["name"] == config.stem, "runs of two recipes must not share a folder"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=stem)
def test_every_overlay_says_how_to_run_it_on_what_and_for_how_long(overlay):
    first, *others = overlay.read_text().splitlines()
    assert f"--config configs/hardware/{overlay.name}" in first
    comment = " ".join(line for line in others if line.startswith("#"))
    assert "Hardware:" in comment and "Expected time" in comment


@pytest.mark.parametrize(("config", "overlay"), [*product(RECIPES, [None, *OVERLAYS])], ids=stem)
def test_every_recipe_can_be_built_on_all_hardware_and_keeps_the_papers_batch(config, overlay, base, monkeypatch):
    built = []
    monkeypatch.setattr(OneStepCLI, "_run_subcommand", lambda self, subcommand: built.append(self))
    files = [word for file in (config, overlay) if file for word in ("--config", str(file))]
    # On the CPU; what kind of device the overlay asks for is in its file alone.
    train.main(["fit", *files, f"--model.init_args.network.init_args.base={base}", "--trainer.accelerator=cpu"])
    trainer, data = built[0].trainer, built[0].datamodule
    effective = data.batch_size * trainer.accumulate_grad_batches * trainer.world_size
    assert effective == PAPER_BATCH
    assert trainer.max_steps == (30_000 if config.stem.startswith("diffusion") else 20_000)
    assert trainer.val_check_interval == 1000 * trainer.accumulate_grad_batches
    for key, value in leaves(yaml.safe_load(overlay.read_text()) if overlay else {}):
        assert key == "trainer.accelerator" or built[0].config.fit[key] == value, key


STARTS = ("marigold", "marigold_v1_1", "stable_diffusion")


def test_normals_are_spoken_in_the_frame_of_the_checkpoint_that_training_starts_from():
    tasks = {stem: (ROOT / f"configs/normals_{stem}.yaml").read_text() for stem in STARTS}
    assert "base: GonzaloMG/marigold-normals" in tasks["marigold"], "another checkpoint may speak another frame"
    assert "frame: dsine" in tasks["marigold"]
    assert "frame" not in tasks["stable_diffusion"]
    assert "base: prs-eth/marigold-normals-v1-1" in tasks["marigold_v1_1"]
    assert "frame:" not in tasks["marigold_v1_1"]


@pytest.mark.parametrize("stem", ["depth_marigold_v1_1", "normals_marigold_v1_1"])
def test_recipes_from_marigold_v1_1_ask_for_a_prediction_from_noise_alone(stem, base, monkeypatch):
    built = []
    monkeypatch.setattr(OneStepCLI, "_run_subcommand", lambda self, subcommand: built.append(self.model.network))
    options = [f"--model.init_args.network.init_args.base={base}", "--trainer.accelerator=cpu"]
    train.main(["fit", "--config", str(ROOT / f"configs/{stem}.yaml"), *options])
    assert built[0].noise_process.last_alpha < 1e-8


def test_nothing_names_a_model_that_has_moved_or_a_package_that_nobody_registered():
    packages = "geometry lightning_modules datamodules synthetic_scenes"
    folders = f"{packages} benchmarks configs docs examples checkpoints research".split()
    files = [file for folder in folders for kind in ("py", "md", "yaml") for file in (ROOT / folder).rglob(f"*.{kind}")]
    files += [*ROOT.glob("*.md"), ROOT / "train.py"]
    assert len(files) > 100
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "install 'onestep-geometry" not in text and "install onestep-geometry" not in text, file
        assert "base: prs-eth/marigold-v1-0" not in text and "`prs-eth/marigold-v1-0`" not in text, file


@pytest.mark.parametrize("config", [config for config in CONFIGS if config not in OF_BASES], ids=stem)
def test_every_configuration_trains_and_validates_on_the_tiny_base(config, data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(data_root))
    monkeypatch.chdir(ROOT)
    small = {
        "--trainer.default_root_dir": str(tmp_path),
        "--trainer.accelerator": "cpu",
        "--trainer.precision": "32-true",
        "--trainer.max_steps": "1",
        "--trainer.accumulate_grad_batches": "2",
        "--trainer.val_check_interval": "1",
        "--data.init_args.num_workers": "0",
    }
    if config.stem != "demo_transformer":  # whose base is another toy
        small |= {"--model.init_args.network.init_args.base": str(BASE)}
    if "demo" in config.stem:
        small |= {"--data.init_args.cache": str(tmp_path / "cache")}
        small |= {"--data.init_args.rooms": "20", "--data.init_args.streets": "0"}
    train.main(["fit", "--config", str(config), *(word for pair in small.items() for word in pair)])
    assert list(tmp_path.glob(f"{config.stem}/version_0/checkpoints/last.ckpt"))
