import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from geometry.errors import InputError
from lightning_modules import FullySharded, StableDiffusion
from lightning_modules.networks.compilation import Compilation
from lightning_modules.networks.sharding import assemble, gather, local, norm_over_ranks, shard, shard_blocks
from lightning_modules.training.gradients import GradientGuard
from lightning_modules.training.strategy import check_strategy
from tests.helpers.tiny import build_base

pytestmark = pytest.mark.filterwarnings("ignore")


def on_two_ranks(check, folder):
    """Run a function in two processes that know each other; what it raises, this raises."""
    torch.multiprocessing.start_processes(_join, (check, str(folder / "store")), nprocs=2, start_method="fork")


def _join(rank, check, store):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    check(rank)
    dist.destroy_process_group()


def sharded_model(seed=0):
    """Layers with 3 and 1 rows, which two ranks cannot share equally."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    whole = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    shard_blocks(model, [model[0]], init_device_mesh("cpu", (2,)))
    return model, whole


def check_round_trip(rank):
    model, whole = sharded_model()
    weights = dict(model.named_parameters())
    assert sum(local(weight).numel() for weight in weights.values()) < sum(weight.numel() for weight in whole.values())
    found = gather({**weights, "step": 3})
    assert found.keys() == ({*whole, "step"} if rank == 0 else {"step"})
    for name, weight in weights.items():
        assert rank or torch.equal(found[name], whole[name])
        again = shard(whole[name], weight)
        assert isinstance(again, DTensor) and torch.equal(local(again), local(weight))
        part = local(weight).detach() + 1
        assert torch.equal(assemble(part, weight).full_tensor(), whole[name] + 1)
        assert torch.allclose(norm_over_ranks(local(weight).detach().norm(), weight), whole[name].norm())


def test_what_is_sharded_comes_back_unsharded_also_where_ranks_have_unequal_parts(tmp_path):
    on_two_ranks(check_round_trip, tmp_path)


def check_guard(rank):
    model, whole = sharded_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0, fused=True)
    guard = GradientGuard(max_norm=1.0, max_skips_in_a_row=2)
    for is_bad in (True, False):
        # Other images on every rank; one of them is bad, and only for the first rank.
        image = torch.full((2, 4), torch.nan if is_bad and rank == 0 else 10.0 + rank)
        model(image).sum().backward()
        norm = guard.apply(optimizer, 0)
        assert not isinstance(norm, DTensor) and bool(norm.isfinite()) is not is_bad
        if not is_bad:
            gradients = torch.cat([weight.grad.full_tensor().flatten() for weight in model.parameters()])
            assert norm > 5 and torch.isclose(gradients.norm(), torch.tensor(1.0), rtol=1e-4)
        optimizer.step()
        optimizer.zero_grad()
        moved = [not torch.equal(weight.full_tensor(), whole[name]) for name, weight in model.named_parameters()]
        assert all(moved) if not is_bad else not any(moved)
    guard.settle()
    assert guard.num_skipped == 1


def test_sharded_gradients_are_clipped_by_the_norm_of_the_whole_and_one_ranks_nan_skips_the_step(tmp_path):
    on_two_ranks(check_guard, tmp_path)


def test_strategies_whose_checkpoints_could_not_be_resumed_are_refused():
    for strategy in (SingleDeviceStrategy("cpu"), DDPStrategy(), FullySharded()):
        check_strategy(strategy)
    with pytest.raises(InputError, match=r"trainer\.strategy ModelParallelStrategy is not supported.*fsdp\.yaml"):
        check_strategy(ModelParallelStrategy())


def test_a_network_that_is_laid_out_channel_by_channel_is_not_sharded(tmp_path):
    network = StableDiffusion(str(build_base(tmp_path / "base")), channels_last=True)
    with pytest.raises(InputError, match=r"network\.channels_last does not work with weights that are sharded"):
        network.shard(None)


def test_a_compiled_network_is_not_sharded(tmp_path):
    network = StableDiffusion(str(build_base(tmp_path / "base")), compile=Compilation(backend="eager"))
    with pytest.raises(InputError, match=r"network\.compile does not work with weights that are sharded"):
        network.shard(None)
