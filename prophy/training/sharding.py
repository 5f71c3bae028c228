"""FSDP2: a student whose weights, gradients and optimiser states are spread over the processes, block by block.

torch's own ``fully_shard``, and not accelerate's: that would also spread the branch's last block by itself, whose parts
the branch calls one by one so that the refinement experts can act between them.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from prophy.branch.family import family_of
from prophy.training.checkpoints import State
from prophy.training.student import Student


def shard(student: Student) -> Student:
    """Spread a student over all processes, in place. Weights keep their dtypes: autocast says what to compute in."""
    blocks = list(family_of(type(student.transformer).__name__).blocks(student.transformer))
    if student.branch is not None:
        blocks += list(student.branch.blocks)[:-1]
    for module in (*blocks, student):
        fully_shard(module, mp_policy=MixedPrecisionPolicy())
    return student


def let_go(model: nn.Module) -> None:
    """Free what a forward pass gathered; without a backward pass some stays, and would hide weights changed since."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(state: State) -> State:
    """A state with every spread tensor gathered, on the CPU. All processes must call it."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, torch.Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [whole(value) for value in state]
    return state


def spread_like(tensor: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """A whole tensor, which every process holds, placed and spread as a parameter is."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter.data, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
