"""Whatever a run's config.yaml holds, predict and export name it in one line."""

from pathlib import Path

import pytest
import torch

from geometry.errors import InputError
from lightning_modules.inference.loading import build_estimator
from lightning_modules.inference.run_config import base_of, read_config
from lightning_modules.networks.weightless import without_weights
from lightning_modules.shipped import find_config


@pytest.mark.parametrize(
    "content",
    [
        b"model: \xe1",
        b"model: " + b"{a: " * 2000 + b"1" + b"}" * 2000,
        b"model: 3",
        b"model: ${model}",
        b"model: [",
        b"3",
    ],
    ids=["no text", "nested", "number", "circle", "cut off", "no sections"],
)
def test_a_configuration_that_cannot_be_read_is_named(tmp_path, content):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"config\.yaml"):
        read_config([file])


@pytest.mark.parametrize("arguments", [None, [], "x"])
def test_a_network_without_options_is_named(arguments):
    with pytest.raises(InputError, match="init_args"):
        base_of({"model": {"init_args": {"network": {"init_args": arguments}}}})


def test_a_model_is_built_whose_optimiser_is_of_a_library_that_names_no_types():
    model = read_config([Path(find_config("demo"))])["model"]
    model["init_args"]["optimizer"] = {"class_path": "bitsandbytes.optim.AdamW8bit", "init_args": {"lr": 1e-4}}
    with without_weights():
        estimator = build_estimator(model)
    (group,) = estimator.make_optimizer(iter([torch.nn.Parameter(torch.zeros(2))])).param_groups
    assert group["lr"] == 1e-4
