"""Every registered modality goes the whole way: frames, shards, training, validation, predictions, exports and back.

A newcomer's modality is met here without a line about it, but for where its raw values come from.
"""

from functools import cache

import numpy as np
import pytest
import torch
import yaml

import train
from datamodules import DatasetSource, GeometryDataModule, prepare
from datamodules.shards.files import EncodedSample
from datamodules.shards.manifest import read_dataset
from datamodules.sources.hypersim import DEFAULT_MODALITIES
from datamodules.sources.hypersim_targets import readers
from datamodules.streaming.batches import BatchAssembler
from geometry.errors import InputError
from geometry.modalities import modality_named, registered
from lightning_modules.export import ExportOptions, export_model
from lightning_modules.inference import Predictor, load_model
from lightning_modules.inference.run_config import last_scores
from lightning_modules.training.run_folders import last_checkpoint, newest_run
from synthetic_scenes import SyntheticHypersim
from tests.helpers.tiny import build_base
from tests.lightning_modules.inference.runs import photo

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = sorted(name for name in registered() if "test" not in name)
SIZE = (32, 48)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with raw rooms and a base, for all modalities."""
    folder = tmp_path_factory.mktemp("modalities")
    SyntheticHypersim(size=SIZE, frames_per_scene=1, val_fraction=0.3).write(folder / "raw", 3, progress=False)
    build_base(folder / "base")
    return folder


@pytest.fixture(scope="module")
def run_of(place):
    """Returns the data and the run of a modality, made once: prepared alone, trained for two steps and validated."""

    @cache
    def make(name):
        shards, root = place / name, place / f"{name}-runs"
        raw = [str(word) for word in ("--raw", place / "raw", "--out", shards, "--size", *SIZE, "--workers", 1)]
        assert prepare.main(["hypersim", *raw, "--modalities", name, "--quiet"]) == 0
        config = place / f"{name}.yaml"
        kind = registered()[name]
        network = {"class_path": "lightning_modules.StableDiffusion", "init_args": {"base": str(place / "base")}}
        task = {
            "class_path": "lightning_modules.Task",
            "init_args": {"modality": f"{kind.__module__}.{kind.__qualname__}"},
        }
        model = {"network": network, "task": task}
        data = {"datasets": [{"path": str(shards)}], "batch_size": 1, "num_workers": 0}
        content = {
            "name": name,
            "model": {"class_path": "lightning_modules.SingleStepEstimator", "init_args": model},
            "data": {"class_path": "datamodules.GeometryDataModule", "init_args": data},
            "trainer": {
                "accelerator": "cpu",
                "max_steps": 2,
                "val_check_interval": 2,
                "enable_progress_bar": False,
                "default_root_dir": str(root),
            },
        }
        config.write_text(yaml.safe_dump(content))
        train.main(["fit", "--config", str(config)])
        return shards, newest_run(root / name)

    return make


def test_every_modality_can_be_had_from_synthetic_frames():
    assert set(NAMES) == {*DEFAULT_MODALITIES, *readers()} and {"depth", "normals"} < set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_shards_of_one_modality_alone_are_checked_and_previewed(run_of, tmp_path, capsys, name):
    shards, _ = run_of(name)
    assert read_dataset(shards).manifest.modalities == (name,)
    capsys.readouterr()
    assert prepare.main(["check", str(shards), "--quiet"]) == 0
    assert f"{name}" in capsys.readouterr().out
    assert prepare.main(["preview", str(shards), "--out", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize("name", NAMES)
def test_it_is_trained_and_validated_by_its_own_error(run_of, name):
    _, run = run_of(name)
    _, scores = last_scores(run)
    error = next(value for key, value in scores.items() if key.endswith(f"/{modality_named(name).error_name}"))
    assert 0 < error < np.inf
    assert last_checkpoint(run).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_published_values_in_files_that_hold_them(run_of, tmp_path, name):
    _, run = run_of(name)
    modality = modality_named(name)
    prediction = Predictor.load(run, processing_res=0)(photo(*SIZE))
    assert prediction.shape == SIZE + ((modality.num_channels,) if modality.num_channels > 1 else ())
    low, high = modality.value_range
    assert low <= prediction.min() < prediction.max() <= high


@pytest.mark.parametrize("name", NAMES)
def test_the_stock_pipeline_answers_like_the_run_and_comes_back(run_of, tmp_path, name):
    _, run = run_of(name)
    if modality_named(name).stock_pipeline is None:
        pytest.skip("diffusers has no pipeline for it")
    record = export_model(load_model(run), ExportOptions(tmp_path / "out", "diffusers", "float32", False))
    assert record.predicts == name and record.agreement.maximum < 1e-3
    image = photo(*SIZE)
    back, own = (Predictor.load(source, processing_res=0) for source in (tmp_path / "out", run))
    assert np.abs(back(image) - own(image)).max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("export_format", ["torch", "onnx"])
@pytest.mark.parametrize("name", NAMES)
def test_a_program_answers_like_the_run(run_of, tmp_path, name, export_format):
    record = export_model(load_model(run_of(name)[1]), ExportOptions(tmp_path / "out", export_format, "float32", False))
    assert record.predicts == name and record.agreement.maximum < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_that_cannot_be_used_teaches_nothing(run_of, name):
    manifest = read_dataset(run_of(name)[0]).manifest
    broken = EncodedSample("a", "shard.tar", {}, problem="it is broken")
    batch, problems = BatchAssembler("rooms", manifest, (name,)).assemble([broken], [True])
    assert problems == ["it is broken"] and not batch.expand().targets[name].mask.any()


@pytest.mark.parametrize("name", NAMES)
def test_shards_without_it_are_missed_in_one_line_at_the_start(run_of, name):
    other = next(there for there in NAMES if there != name)
    data = GeometryDataModule([DatasetSource(str(run_of(other)[0]))], modalities=[name])
    with pytest.raises(InputError, match=rf"has no {name}, which the task needs\. It holds {other}\."):
        data.setup("fit")


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_as_an_image_comes_back_as_the_truth(name):
    """What the VAE would decode perfectly scores perfectly."""
    modality = modality_named(name)()
    generator = torch.Generator().manual_seed(0)
    stored = torch.rand(2, modality.num_channels, 16, 16, generator=generator) + 0.1
    stored = (stored / stored.norm(dim=1, keepdim=True)) if modality.num_channels > 1 else stored
    target = modality.restore(stored, (0.0, 2.0))
    assert target.mask.all()
    decoded = modality.to_image(target)
    assert decoded.shape == (2, 3, 16, 16) and decoded.abs().max() <= 1
    aligned = modality.align(modality.from_image(decoded), target)
    inside = modality.error(aligned, target).flatten().quantile(0.5)
    assert inside < 0.05
