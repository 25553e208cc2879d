"""A base in 4 bits under adapters, as a user has it: trained, killed, resumed to the bit, merged and exported."""

import json
import shutil

import pytest
import torch

import train
from lightning_modules import PretrainedNetwork
from lightning_modules.export.merging import merge_difference
from lightning_modules.export.verification import probe
from lightning_modules.inference.loading import load_model
from lightning_modules.networks.lora import LoRA
from tests.helpers import runs
from tests.lightning_modules.networks.families.test_life_of_a_run import without_encoders
from tests.tiny_bases import write_base

pytestmark = pytest.mark.filterwarnings("ignore")
runs.start_server()

EVERY_STEP = "--checkpoints.every_n_steps=1"


def configured(folder, kind="flux_kontext", **options):
    base = without_encoders(write_base(folder / "base", kind))
    arguments = {"base": str(base), "input_mode": "image", "quantization": "nf4", "lora": {"rank": 2}, **options}
    network = {"class_path": "lightning_modules.PretrainedNetwork", "init_args": arguments}
    return runs.prepare(folder / "data", 3, network)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three steps, and the configuration that it had."""
    folder = tmp_path_factory.mktemp("nf4")
    config = configured(folder)
    assert runs.fit(folder / "runs", config, EVERY_STEP) == [0], runs.log_of(folder / "runs")
    return folder / "runs", config


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_end_to_the_bit(trained, tmp_path):
    undisturbed, config = trained
    assert runs.fit(tmp_path, config, EVERY_STEP, *runs.kill_at(5)) == [-9], runs.log_of(tmp_path)
    assert runs.fit(tmp_path, config, EVERY_STEP) == [0], runs.log_of(tmp_path)
    runs.assert_same_end(tmp_path, undisturbed)


@pytest.mark.slow
def test_a_checkpoint_holds_the_adapters_and_nothing_of_the_base(trained):
    undisturbed, _ = trained
    state = runs.last(undisturbed)
    network = load_model(undisturbed / "tiny").estimator.network
    adapters = {f"network.{name}" for name, _ in network.named_parameters() if ".lora_" in name}
    assert state["state_dict"].keys() == state["ema_state_dict"].keys() == adapters
    assert {weight.dtype for weight in state["state_dict"].values()} == {torch.float32}
    num_adapted = sum(weight.numel() for weight in state["state_dict"].values())
    num_frozen = sum(weight.numel() for weight in network.parameters() if not weight.requires_grad)
    assert num_frozen > 2 * num_adapted

    def largest_tensors(node):
        if isinstance(node, torch.Tensor):
            return [node.numel() * node.element_size()]
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else []
        return [size for each in inner for size in largest_tensors(each)]

    # Weights, their average, and two moments of the optimiser; the rest are counters and random states.
    held = sum(largest_tensors({name: state[name] for name in ("state_dict", "ema_state_dict", "optimizer_states")}))
    assert held < 4 * 4 * num_adapted + 4 * len(adapters) + 1
    rest = sum(largest_tensors(state)) - held
    assert rest < 100_000, "the file has large tensors of which nobody knows"
    file = next((undisturbed / "tiny").glob("version_*/checkpoints/last.ckpt"))
    assert file.stat().st_size < held + rest + 500 * 4 * len(adapters) + 100_000


@pytest.mark.parametrize("input_mode", ["image", "concatenated"])
def test_adapters_on_quantised_and_plain_layers_merge_within_rounding(tmp_path, input_mode):
    base = without_encoders(write_base(tmp_path / "base", "qwen_image"))
    lora = LoRA(rank=128, target_modules=["attn.to_q", "img_mlp.net.2", "proj_out", "img_in"])
    network = PretrainedNetwork(str(base), input_mode, lora=lora, quantization="nf4").eval()
    images = [probe(50, 70, 0), probe(32, 48, 1)]
    for name, weight in network.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.1)
    found = merge_difference(network, images)
    assert 0 < found.relative_rms < 1e-5 and 0 < found.relative_maximum < 1e-5


def test_a_base_that_is_not_in_4_bits_has_no_such_difference(tmp_path):
    base = without_encoders(write_base(tmp_path / "base", "flux_kontext"))
    assert merge_difference(PretrainedNetwork(str(base), "image", lora=LoRA()), [probe(16, 16, 0)]) is None


@pytest.mark.slow
def test_an_export_prints_and_notes_down_what_merging_changed(trained, tmp_path, capsys):
    undisturbed, _ = trained
    output = tmp_path / "out"
    train.main(["export", "--run", str(undisturbed / "tiny"), "--output", str(output), "--format", "torch"])
    printed = capsys.readouterr().out
    record = json.loads((output / "onestep.json").read_text())["merged"]
    assert 0 < record["relative_maximum"] < 1e-5 and 0 < record["relative_rms"] < 1e-5
    line = f"largest {record['relative_maximum']:.2g} of the largest value, rms {record['relative_rms']:.2g}"
    assert f"merged from 4 bits and adapters; difference of the clean latents: {line}" in printed
    assert line in (output / "README.md").read_text()
    shutil.rmtree(output)
