"""The comparison of libraries for 4 bits measures what it says, and a library that is not there is one line."""

import sys

import torch

from benchmarks import four_bits


def test_what_this_project_uses_computes_with_its_dequantised_weights():
    line = four_bits.compare("bitsandbytes", four_bits.bitsandbytes_nf4)
    error = float(line.split("error of the weights ")[1].split(",")[0])
    assert 0.08 < error < 0.10, "NF4 of normally distributed weights"
    assert float(line.split("within ")[1].split(" ")[0]) < 1e-6


def test_wrong_weights_would_be_noticed():
    def wrong(layer):
        return layer, layer.weight + torch.ones_like(layer.weight) / 100

    assert float(four_bits.compare("torch", wrong).split("within ")[1].split(" ")[0]) > 0.1


def test_a_library_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    line = four_bits.compare("torchao", four_bits.torchao_nf4)
    assert line.startswith("does not run on this CPU (ModuleNotFoundError") and "\n" not in line
