"""What is proposed to make a configuration fit keeps its images per step and goes together."""

import shlex

import pytest
import yaml

from lightning_modules.networks.quantization import check_quantization
from lightning_modules.planning.setting import read_setting
from lightning_modules.planning.ways_to_fit import _ways

SHARDED = {"class_path": "lightning_modules.FullySharded"}


def ways_of(folder, trainer=None, data=None, kind="StableDiffusion", optimizer=None, **network):
    """The ways of a configuration whose base is never read, as pairs: words by option, and the setting."""
    options = {"base": "checkpoints/tiny-stable-diffusion", **network}
    arguments = {"network": {"class_path": f"lightning_modules.{kind}", "init_args": options}}
    if optimizer:
        arguments["optimizer"] = optimizer
    model = {"class_path": "lightning_modules.SingleStepEstimator", "init_args": arguments}
    data = {"class_path": "datamodules.GeometryDataModule", "init_args": data or {}}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer or {}}))
    setting = read_setting([file], (32, 32))
    found = [(dict(word.partition("=")[::2] for word in split(way.options)), way.setting) for way in _ways(setting)]
    assert found
    return setting, found


def split(options):
    return shlex.split(" ".join(options))


def network_of(setting):
    return setting.model["init_args"]["network"]["init_args"]


@pytest.mark.parametrize("trainer", [{}, {"devices": 2}, {"devices": 2, "num_nodes": 2}], ids=str)
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_every_way_keeps_the_images_per_step_and_says_how(trainer, batch_size, tmp_path):
    trainer = trainer | {"accumulate_grad_batches": 8}
    before, ways = ways_of(tmp_path, trainer, {"batch_size": batch_size})
    assert before.images_per_step == 8 * batch_size * before.devices
    for words, setting in ways:
        assert setting.images_per_step == before.images_per_step, words
        nodes = trainer.get("num_nodes", 1)
        devices = nodes * int(words.get("--trainer.devices", before.devices // nodes))
        micro_batches = int(words.get("--trainer.accumulate_grad_batches", 8))
        assert devices * micro_batches * int(words.get("--data.batch_size", batch_size)) == before.images_per_step
        assert (devices, micro_batches) == (setting.devices, setting.situation.micro_batches)
    assert any(setting.is_sharded for _, setting in ways)


def test_images_per_step_that_cannot_be_split_among_devices_are_not_sharded_over_these(tmp_path):
    _, ways = ways_of(tmp_path, {"accumulate_grad_batches": 6}, {"batch_size": 1})
    assert [setting.devices for _, setting in ways if setting.is_sharded] == [2]


@pytest.mark.parametrize(("configured", "proposed"), [(1, [2, 4, 8]), (4, [4, 8]), (8, [8]), (16, [])])
def test_sharding_takes_no_fewer_devices_than_are_configured(configured, proposed, tmp_path):
    trainer = {"accumulate_grad_batches": 8, "devices": configured}
    _, ways = ways_of(tmp_path, trainer, {"batch_size": 1})
    assert [setting.devices for _, setting in ways if setting.is_sharded] == proposed


def test_devices_that_nodes_cannot_share_alike_are_not_proposed(tmp_path):
    _, ways = ways_of(tmp_path, {"accumulate_grad_batches": 8, "num_nodes": 3, "devices": 1}, {"batch_size": 1})
    assert not [setting.devices for _, setting in ways if setting.is_sharded]


def test_what_is_sharded_is_neither_compiled_nor_laid_out_channel_by_channel(tmp_path):
    trainer = {"accumulate_grad_batches": 8}
    _, ways = ways_of(tmp_path, trainer, compile={"mode": "default"}, channels_last=True)
    sharded = [(words, setting) for words, setting in ways if setting.is_sharded]
    assert sharded
    for words, setting in sharded:
        assert words["--model.network.compile"] == "null" and network_of(setting)["compile"] is None
        assert words["--model.network.channels_last"] == "false" and network_of(setting)["channels_last"] is False
    for words, setting in ways:
        if not setting.is_sharded:
            assert "--model.network.compile" not in words and network_of(setting)["compile"]


def test_what_has_4_bits_is_not_compiled_and_has_adapters(tmp_path):
    _, ways = ways_of(tmp_path, kind="PretrainedNetwork", compile={"mode": "default"})
    packed = [(words, setting) for words, setting in ways if "--model.network.quantization" in words]
    assert packed
    for words, setting in packed:
        options = network_of(setting)
        check_quantization(options["quantization"], bool(options.get("lora")), bool(options.get("compile")))
        assert words["--model.network.compile"] == "null" and "--model.network.lora" in words


@pytest.mark.parametrize(("val_batch_size", "is_said"), [(None, False), (4, True)])
def test_smaller_batches_of_validation_are_said_where_they_do_not_follow(val_batch_size, is_said, tmp_path):
    _, ways = ways_of(tmp_path, data={"batch_size": 1 if is_said else 2, "val_batch_size": val_batch_size})
    small = [(words, setting) for words, setting in ways if setting.situation.val_batch_size == 1]
    assert small
    assert all(("--data.val_batch_size" in words) == is_said for words, _ in small)


@pytest.mark.parametrize(
    ("optimizer", "small"),
    [
        (None, {"bitsandbytes.optim.AdamW8bit"}),
        ({"class_path": "torch.optim.AdamW"}, {"bitsandbytes.optim.AdamW8bit"}),
        ({"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}, {"bitsandbytes.optim.Adam8bit"}),
        ({"class_path": "torch.optim.SGD"}, set()),
    ],
    ids=str,
)
def test_states_of_8_bits_are_those_of_the_optimiser_that_is_configured(optimizer, small, tmp_path):
    _, ways = ways_of(tmp_path, optimizer=optimizer)
    assert {words["--model.optimizer"] for words, _ in ways if "--model.optimizer" in words} == small
