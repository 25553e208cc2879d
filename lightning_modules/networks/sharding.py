"""Weights that are sharded over devices (FSDP2): how they are sharded, and how the whole is seen and filled again."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from geometry.errors import InputError


def shard_blocks(model: nn.Module, blocks: Sequence[nn.Module], mesh: DeviceMesh) -> None:
    """Shard the weights of a model over devices, so that one block at a time is unsharded to compute with it.

    Args:
        model: the model; what lies outside of its blocks is unsharded when it is called.
        blocks: parts of the model.
        mesh: the devices.

    Raises:
        InputError: weights are laid out channel by channel, which FSDP2 does not take.
    """
    if not all(weight.is_contiguous() for weight in model.parameters()):
        raise InputError(
            "network.channels_last does not work with weights that are sharded over devices; leave it out."
        )
    for part in (*blocks, model):
        # Never left unsharded after the forward pass, not even the model's own weights: who looks at them finds parts.
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def unshard(model: nn.Module) -> None:
    """Unshard all weights of a model until ``reshard``; all ranks must call this together.

    Ranks may then use the model unequally often, as in a validation whose batches cannot be dealt out evenly.

    Args:
        model: the model; one that is not sharded stays as it is.
    """
    for part in _sharded_parts(model):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def reshard(model: nn.Module) -> None:
    """Undo ``unshard``; the ranks need not wait for each other.

    Args:
        model: the model.
    """
    for part in _sharded_parts(model):
        part.set_reshard_after_forward(True, recurse=False)
        part.reshard()


def _sharded_parts(model: nn.Module) -> list[FSDPModule]:
    return [part for part in model.modules() if isinstance(part, FSDPModule)]


def local(tensor: Tensor) -> Tensor:
    """Return this device's shard of a tensor, in the same memory; a tensor that is not sharded is its own."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard(whole: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor, sharded like another one, on that one's device; as it is if that one is not sharded.

    Args:
        whole: the same on every rank.
        like: tensor of that shape.
    """
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def assemble(part: Tensor, like: Tensor) -> Tensor:
    """Return the sharded tensor that this rank holds a part of; the part as it is if the other is not sharded.

    Args:
        part: what ``local`` returned, or other values for it.
        like: the tensor that is sharded in this way.
    """
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(
        part.to(like.device), like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def gather(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors whole: sharded ones in main memory, on the first rank alone; others as they are, on every rank.

    Args:
        tensors: tensors by name, or other values, which stay as they are. All ranks must call this together.
    """
    found = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            whole = tensor.full_tensor()  # one at a time, so that little memory is needed
            if dist.get_rank() == 0:
                found[name] = whole.detach().cpu()
        else:
            found[name] = tensor
    return found


def norm_over_ranks(norm: Tensor, like: Tensor) -> Tensor:
    """Return the norm of all parts from that of this rank's part.

    Args:
        norm: scalar, the norm of parts that are sharded like ``like``.
        like: a tensor; if it is not sharded, the norm is complete already.
    """
    if not isinstance(like, DTensor):
        return norm
    squares = norm.square()
    dist.all_reduce(squares, group=like.device_mesh.get_group())
    return squares.sqrt()
