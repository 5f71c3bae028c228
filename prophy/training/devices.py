"""Where a training computes: its processes, their device, and the precision of its matrix products."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import parse_flag_from_env


def chosen_device(name: str | None = None) -> torch.device:
    """The device of that name; without a name the machine's accelerator, or its CPU.

    Raises:
        ValueError: there is no such device here. One line.
    """
    found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if name is None:
        return found
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:
        raise ValueError(f"--device {name} cannot be used here: give cpu or {found.type}, or leave it out") from error
    return device


def join_processes(device: str | None = None) -> PartialState:
    """Meet the other processes that torchrun started, each on its device. Ask this before anything of accelerate's.

    Args:
        device: see :func:`chosen_device`; of several processes each takes its own one of that type.

    Raises:
        ValueError: no such device; or torchrun started several processes, and each would train alone. One line.
    """
    wanted = chosen_device("cpu" if device is None and parse_flag_from_env("ACCELERATE_USE_CPU") else device)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    met = "MASTER_ADDR" in os.environ  # torchrun says where
    state = PartialState(cpu=wanted.type == "cpu") if started == 1 or met else None
    if state is None or (started > 1 and state.num_processes == 1):
        raise ValueError(f"{started} processes were started, but did not find each other: start them with torchrun")
    if state.num_processes == 1 and state.device != wanted:  # an earlier training in this process had another one
        AcceleratorState._reset_state()
        state.device = wanted
    return state


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """Inside, matrix products are computed in ``precision``; float32 leaves everything as it is."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)
