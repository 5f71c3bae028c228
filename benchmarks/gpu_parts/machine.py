"""The machine: whether it can measure anything, how time and memory are read on it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import diffusers
import torch

from gpu_parts.results import Machine

_FREE_SHARE = 0.8  # of a card's memory that is free where nobody else uses it
_PATIENCE = 20  # looks at it, half a second apart


class Unfit(Exception):
    """A part cannot run on this machine; one line that says why."""


def describe_machine(device: torch.device, small: bool) -> Machine:
    """The machine, if it can measure.

    Raises:
        Unfit: no card, a driver too old for this torch, no bfloat16, or a card that others use. One line.
    """
    versions = torch.__version__, diffusers.__version__
    if device.type != "cuda":
        return Machine("CPU", 0, "", *versions, small)
    check_card(device)
    about = torch.cuda.get_device_properties(device)
    return Machine(about.name, about.total_memory, _driver(), *versions, small)


def check_card(device: torch.device) -> None:
    """Refuse a card that cannot measure; see :func:`describe_machine`."""
    if torch.version.cuda is None and torch.version.hip is None:
        raise Unfit(
            f"torch {torch.__version__} is built without CUDA: install the build for the driver, or use --small"
        )
    try:
        torch.cuda.init()
        free, total = torch.cuda.mem_get_info(device)
    except Exception as error:  # no driver, one too old for this build, no such card
        lines = str(error).strip().splitlines()
        raise Unfit(f"the GPU cannot be used ({lines[0] if lines else type(error).__name__}): use --small") from None
    name = torch.cuda.get_device_name(device)
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        major, minor = torch.cuda.get_device_capability(device)
        raise Unfit(f"{name} (capability {major}.{minor}) computes no bfloat16: every part needs it")
    for _ in range(_PATIENCE):  # what a part that was cut held is not free at once
        if free >= _FREE_SHARE * total:
            return
        time.sleep(0.5)
        free, total = torch.cuda.mem_get_info(device)
    if free < _FREE_SHARE * total:
        used = (total - free) / 2**30
        raise Unfit(f"{name} is busy: {used:.1f} of {total / 2**30:.1f} GiB are taken by others; wait until it is free")


def _driver() -> str:
    try:
        version = Path("/proc/driver/nvidia/version").read_text().split("Kernel Module")[1].split()
        return next(word for word in version if word[0].isdigit())
    except (OSError, IndexError, StopIteration):
        return "unknown"


# --- time ------------------------------------------------------------------------------------------------------------


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Of one call, until the device has done it."""
    settle(device)
    started = time.perf_counter()
    call()
    settle(device)
    return time.perf_counter() - started


def in_turns(
    calls: dict[str, Callable[[], object]], device: torch.device, *, repeats: int, seconds: float
) -> dict[str, tuple[float, ...]]:
    """Seconds of every call, taken in turns after one of each to warm up.

    Args:
        calls: by name.
        device: that they compute on.
        repeats: of each, at most.
        seconds: of it all, after which no further turn begins; two are always made.
    """
    for call in calls.values():
        seconds_of(call, device)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    began = time.perf_counter()
    for turn in range(repeats):
        if turn >= 2 and time.perf_counter() - began > seconds:
            break
        for name, call in calls.items():
            taken[name].append(seconds_of(call, device))
    return {name: tuple(values) for name, values in taken.items()}


def medians(taken: dict[str, tuple[float, ...]]) -> dict[str, float]:
    return {name: median(values) for name, values in taken.items()}


# --- memory ----------------------------------------------------------------------------------------------------------


class MemoryMeter:
    """The highest memory since the last look: of the allocator on a card, of the process on a CPU (Linux)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0 if device.type == "cuda" else _resident("VmRSS")

    def begin(self) -> None:
        """Forget what was."""
        if self._device.type == "cuda":
            settle(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def held(self) -> int:
        """Bytes now."""
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        return max(0, _resident("VmRSS") - self._before)

    def highest(self) -> int:
        """Bytes at the highest point since :meth:`begin`."""
        if self._device.type == "cuda":
            settle(self._device)
            return torch.cuda.max_memory_allocated(self._device)
        return max(0, _resident("VmHWM") - self._before)

    def reserved(self) -> int:
        """Bytes that the allocator had taken at its highest."""
        return torch.cuda.max_memory_reserved(self._device) if self._device.type == "cuda" else self.highest()

    def outside(self) -> int:
        """Bytes of the card that are neither free nor the allocator's."""
        if self._device.type != "cuda":
            return 0
        free, total = torch.cuda.mem_get_info(self._device)
        return total - free - torch.cuda.memory_reserved(self._device)


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise Unfit(f"no {field} in /proc/self/status: memory on a CPU is read on Linux only")


def let_go(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def shortage_named(what: str) -> Iterator[None]:
    """Turn a shortage of memory inside into :class:`Unfit`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise Unfit(f"too little memory for {what}") from None
