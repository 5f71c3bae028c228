"""FSDP2: weights, gradients and optimiser states sharded over the processes, block by block.

torch's own ``fully_shard``, and not accelerate's: that would also spread the branch's last block by itself, whose parts
the branch calls one by one so that the refinement experts can act between them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from prophy.branch.family import family_of
from prophy.training.trainable import TrainableModule


def shard(module: TrainableModule) -> TrainableModule:
    """Shard a module over all processes, in place. Weights keep their dtypes: autocast says what to compute in."""
    blocks = list(family_of(type(module.transformer).__name__).blocks(module.transformer))
    if module.branch is not None:
        blocks += list(module.branch.blocks)[:-1]
    for part in (*blocks, module):
        fully_shard(part, mp_policy=MixedPrecisionPolicy())
    return module


def reshard(model: nn.Module) -> None:
    """Free weights that a forward pass gathered: without a backward pass some stay, and would hide later changes."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def gather_full(state: Any) -> Any:
    """A state with every sharded tensor gathered, on the CPU. All processes must call it."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, torch.Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: gather_full(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [gather_full(value) for value in state]
    return state


def distribute_like(tensor: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """A full tensor, which every process holds, placed and sharded like a parameter."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter.data, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
