"""What the routers and heads compute in float32, whatever surrounds them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(x: torch.Tensor) -> AbstractContextManager:
    """Inside, autocast leaves the operations on the tensor's device alone; a device may have none, as ``meta`` has."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """What a matrix product of ``x`` would be computed in."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype
