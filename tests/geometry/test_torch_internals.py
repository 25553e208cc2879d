"""What is used of PyTorch's private parts does in the installed version what this project takes it for."""

import os
import time
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader

from geometry.torch_internals import (
    LAST_RATES,
    compiler_modes,
    end_workers,
    is_failed_compilation,
    is_refusal_to_trace,
    is_to_be_compiled,
    raise_recompile_limit,
    recompile_option,
    shared_storage,
    skips_by_itself,
    tree_leaves,
    tree_map_only,
)


def test_an_optimiser_that_skips_by_itself_leaves_the_weights_alone_and_no_other_does():
    for fused in (True, False):
        weight = nn.Parameter(torch.ones(3))
        optimizer = torch.optim.AdamW([weight], fused=fused)
        weight.grad = torch.ones(3)
        optimizer.found_inf = torch.ones(())
        with nullcontext() if fused else pytest.raises(AssertionError):  # older releases say nothing
            optimizer.step()
        assert skips_by_itself(optimizer) == fused
        assert torch.equal(weight, torch.ones(3))


def test_a_schedule_goes_on_from_the_stored_rates():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    assert schedule.state_dict()[LAST_RATES] == [0.5]
    schedule.load_state_dict(schedule.state_dict() | {LAST_RATES: [0.25]})
    assert schedule.get_last_lr() == [0.25]


def test_the_compilers_modes_are_those_that_torch_compile_takes():
    assert {"default", "reduce-overhead", "max-autotune"} <= set(compiler_modes())
    for mode in compiler_modes():
        torch.compile(nn.Identity(), mode=mode)
    with pytest.raises(RuntimeError, match="Unrecognized mode"):
        torch.compile(nn.Identity(), mode="no such mode")


class Twice(nn.Module):
    def forward(self, value):
        return value * 2


def test_more_compilations_are_allowed_and_never_fewer():
    torch._dynamo.reset()
    counters.clear()
    before = torch._dynamo.config.accumulated_recompile_limit
    module = Twice()
    module.compile(backend="eager", dynamic=False)
    try:
        torch._dynamo.config.accumulated_recompile_limit = 1
        raise_recompile_limit(3)
        for size in range(2, 6):
            module(torch.ones(size))
        assert counters["stats"]["unique_graphs"] == 3  # with the limit of 1 it would be 1
        raise_recompile_limit(2)
        assert torch._dynamo.config.accumulated_recompile_limit == 3
    finally:
        torch._dynamo.config.accumulated_recompile_limit = before
        torch._dynamo.reset()


def test_one_region_is_compiled_as_often_as_it_is_allowed_to():
    torch._dynamo.reset()
    counters.clear()
    before = torch._dynamo.config.recompile_limit
    module = Twice()
    module.compile(backend="eager", dynamic=False, **recompile_option(before + 3))
    try:
        for size in range(2, before + 7):
            module(torch.ones(size))
        assert counters["stats"]["unique_graphs"] == before + 3
    finally:
        torch._dynamo.config.recompile_limit = before
        torch._dynamo.reset()


def test_a_module_that_is_to_be_compiled_is_known_and_so_is_one_inside_another():
    inner = nn.Identity()
    outer = nn.Sequential(inner)
    assert not is_to_be_compiled(inner)
    inner.compile(backend="eager")
    assert is_to_be_compiled(inner)
    assert not is_to_be_compiled(outer)


class Counting(nn.Module):
    def forward(self, image):
        return image * len(image)  # a number, in place of a size that may vary


class Mistaken(nn.Module):
    def forward(self, image):
        raise ValueError("a mistake")


def test_a_model_that_cannot_be_traced_for_any_size_is_told_from_a_mistake():
    for model, is_refusal in ((Counting(), True), (Mistaken(), False)):
        with pytest.raises(Exception) as caught:
            torch.export.export(model, (torch.rand(3, 2),), dynamic_shapes=({0: torch.export.Dim("batch", max=63)},))
        assert is_refusal_to_trace(caught.value) is is_refusal


def test_a_compiler_that_fails_is_told_from_the_code_that_it_compiles():
    def broken(graph, inputs):
        raise ImportError("x.so: file too short")

    def wrong(tensor):
        return tensor @ tensor

    for compiled, is_failure in ((torch.compile(torch.sin, backend=broken), True), (wrong, False)):
        torch._dynamo.reset()
        with pytest.raises(Exception) as caught:
            compiled(torch.rand(2, 3))
        assert is_failed_compilation(caught.value) is is_failure


def test_shared_memory_is_seen_by_another_process_and_sharing_it_copies_nothing():
    storage = shared_storage(4)
    tensor = torch.empty(0, dtype=torch.uint8).set_(storage).zero_()
    assert tensor.is_shared()
    assert tensor.share_memory_().data_ptr() == storage.data_ptr()
    child = os.fork()
    if not child:
        tensor[1] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert tensor.tolist() == [0, 7, 0, 0]


def test_the_processes_of_a_loader_end_and_the_next_iteration_has_new_ones():
    loader = DataLoader(range(4), batch_size=None, num_workers=1, persistent_workers=True)
    assert end_workers(loader) == []
    for _ in range(2):
        held = iter(loader)  # as a traceback may hold it
        assert list(held) == [0, 1, 2, 3]
        (worker,) = end_workers(loader)
        deadline = time.monotonic() + 60
        while worker.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not worker.is_alive()


def test_tensors_are_found_and_replaced_wherever_arguments_hold_them():
    arguments = ([torch.ones(1)], {"a": (torch.zeros(1), "word")})
    assert [leaf for leaf in tree_leaves(arguments) if not isinstance(leaf, torch.Tensor)] == ["word"]
    doubled = tree_map_only(torch.Tensor, lambda tensor: tensor + 1, arguments)
    assert doubled == ([torch.tensor([2.0])], {"a": (torch.tensor([1.0]), "word")})
