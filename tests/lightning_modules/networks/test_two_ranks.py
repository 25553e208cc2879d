"""A family of transformers, and frozen layers under adapters, on two ranks: gradients are those of one rank."""

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from lightning_modules.networks.compilation import Compilation
from lightning_modules.networks.frozen import FrozenConv2d
from lightning_modules.networks.lora import LoRA
from tests.helpers.tiny import build_base, make_batch
from tests.lightning_modules.networks.test_other_family import TinyFlow
from tests.lightning_modules.training.test_strategy import on_two_ranks

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

NETWORKS: dict[str, Callable[[str], torch.nn.Module]] = {
    "transformer": lambda base: TinyFlow(checkpointing=True),
    "transformer with adapters": lambda base: TinyFlow(lora=LoRA(rank=2)),
    "compiled blocks": lambda base: TinyFlow(compile=Compilation(backend="aot_eager", regions="blocks")),
    "frozen layers under adapters": lambda base: StableDiffusion(base, lora=LoRA(rank=2)),
    "frozen decoder beside a trained UNet": lambda base: StableDiffusion(base),
}


class Loss(torch.nn.Module):
    """The loss as a forward pass, which is what DDP watches."""

    def __init__(self, network):
        super().__init__()
        self.estimator = SingleStepEstimator(network, Depth())

    def forward(self, batch):
        return self.estimator.training_loss(batch, range(len(batch.key)))[0]


def same_network(make, base):
    """Every call makes the same network. Adapters begin as no change at all, and half of their gradients as zero;
    they are something here.
    """
    torch.manual_seed(0)
    network = make(base)
    for name, weight in network.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.2)
    return network


def images():
    batch = make_batch(4)
    batch.targets["depth"].mask[:] = True  # equally many pixels on every rank
    return batch


def gradients(network):
    named = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    return {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in named.items()}


def check(make, base, sharded, rank):
    alone = same_network(make, base)
    Loss(alone)(images()).backward()
    network = same_network(make, base)
    if "Stable" in type(network).__name__:
        assert any(isinstance(layer, FrozenConv2d) for layer in network.modules())
    if sharded:
        network.shard(init_device_mesh("cpu", (2,)))
        assert all(isinstance(weight, DTensor) for weight in network.parameters() if weight.requires_grad)
    loss = Loss(network) if sharded else DistributedDataParallel(Loss(network))
    loss(images()[rank::2]).backward()
    found, expected = gradients(network), gradients(alone)
    assert found.keys() == expected.keys() and len(found) > 3
    assert {name for name, weight in network.named_parameters() if weight.requires_grad} == found.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item()), name
    whole = torch.cat([gradient.flatten() for gradient in expected.values()])
    assert whole.abs().max() > 0
    dist.barrier()


@pytest.mark.parametrize(
    ("name", "sharded"),
    [(name, sharded) for name in NETWORKS for sharded in (False, True) if not (sharded and "compiled" in name)],
)
def test_two_ranks_with_two_images_have_the_gradients_of_one_with_four(tmp_path, name, sharded):
    base = str(build_base(tmp_path / "base"))
    on_two_ranks(lambda rank: check(NETWORKS[name], base, sharded, rank), tmp_path)
