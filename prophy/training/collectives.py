"""Sums and rows over all processes, through which gradients flow: a loss is then that of the whole batch.

Every process computes the same loss from them. Data parallelism averages the gradients of the processes, so each one's
share is multiplied by their number on the way back; what comes out is the gradient on one process with the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_reduce_sum(sum_here: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes."""
    return sum_here if world_size() == 1 else _AllReduceSum.apply(sum_here)


def all_gather(rows_here: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, process by process; each brings as many."""
    return rows_here if world_size() == 1 else _AllGather.apply(rows_here)


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sum_here: torch.Tensor) -> torch.Tensor:
        result = sum_here.clone()
        dist.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * world_size()


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_here: torch.Tensor) -> torch.Tensor:
        ctx.count = len(rows_here)
        parts = [torch.empty_like(rows_here) for _ in range(world_size())]
        dist.all_gather(parts, rows_here.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        first = dist.get_rank() * ctx.count
        return gradient[first : first + ctx.count] * world_size()
