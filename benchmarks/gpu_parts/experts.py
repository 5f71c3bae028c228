"""Part c: the refinement block against one dense linear layer over the same rows, at the models' own sizes.

Beside it the plain loop and all experts on all tokens (``benchmarks/experts.py``), its grouped products alone, the
block compiled, and one other way to sort and to sum. All ways must agree before anything is timed. Where the block
misses its aim, the profiler says which operations take the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import experts as benchmark
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from gpu_parts.machine import settle
from gpu_parts.results import ExpertsRow, KernelRow, Remark, Row
from prophy.branch.refinement import RefinementExpertBlock

#: (width, tokens): Wan2.1-1.3B's, CogVideoX-5B's, Wan2.2-TI2V-5B's and Wan2.1-14B's width and tokens of a clip
SIZES = ((1536, 32760), (3072, 17550), (3072, 27280), (5120, 32760))
_SMALL_SIZES = ((64, 256),)
_REPEATS = 15
_OPERATIONS = 12  # of the profiler's list
GATHERED, COMPILED = "gathered", "the block, compiled"


class Gathered(RefinementExpertBlock):
    """The block with the ends of its groups searched in the sorted ids, for which nobody waits for the card, and with
    the answers gathered and summed as a batch of small products instead of looked up as bags."""

    def _dispatch(self, tokens_RD: torch.Tensor, ids_RK: torch.Tensor, shares_RK: torch.Tensor) -> torch.Tensor:
        dtype, experts = tokens_RD.dtype, len(self.bias_ED)
        shares_RK = shares_RK.to(dtype)
        sorted_M, order_M = ids_RK.flatten().sort(stable=True)
        ends_E = torch.searchsorted(sorted_M, torch.arange(experts, device=sorted_M.device), right=True, out_int32=True)
        answers_MD = functional.grouped_mm(
            tokens_RD.index_select(0, order_M // self.top_k), self.weight_EDD.to(dtype), offs=ends_E
        )
        places_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(len(order_M), device=order_M.device))
        answers_RKD = answers_MD.index_select(0, places_M).view(*ids_RK.shape, -1)
        mixed_RD = torch.bmm(shares_RK[:, None], answers_RKD).squeeze(1)
        shares_RE = shares_RK.new_zeros(len(ids_RK), experts).scatter(1, ids_RK, shares_RK)
        return mixed_RD.addmm_(shares_RE, self.bias_ED.to(dtype))


class Compiled(RefinementExpertBlock):
    """The block through ``torch.compile``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.compile(dynamic=False)


def measure_experts(device: torch.device, small: bool) -> Iterator[Row]:
    """Median seconds of every way, forward and both ways, in bfloat16."""
    kinds = {**benchmark.KINDS, GATHERED: Gathered}
    if not small:  # compiling takes longer than everything else at that size
        kinds[COMPILED] = Compiled
    for width, tokens in _SMALL_SIZES if small else SIZES:
        for backward in (False, True):
            case = benchmark.Case(width, tokens, torch.bfloat16, backward)
            passes = "forward and backward" if backward else "forward"
            try:
                seconds = benchmark.measure(case, 3 if small else _REPEATS, device, kinds)
            except torch.OutOfMemoryError:
                yield Remark(f"{tokens} rows of width {width}, {passes}: too little memory")
                continue
            linear = seconds[benchmark.LINEAR]
            for form, taken in seconds.items():
                yield ExpertsRow(width, tokens, "bfloat16", passes, form, taken, taken / linear)
            if seconds[benchmark.BLOCK] > benchmark.AIM * linear:
                yield from _profiled(case, passes, device)


def _profiled(case: benchmark.Case, passes: str, device: torch.device) -> Iterator[KernelRow]:
    """The operations of a pass of the block that take most."""
    calls, leaves = benchmark.forms(case, device, {benchmark.BLOCK: RefinementExpertBlock})
    call: Callable[[], torch.Tensor] = calls[benchmark.BLOCK]
    on_card = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]
    call()
    with profile(activities=activities) as profiler:
        call()
        settle(device)
    for leaf in leaves:
        leaf.grad = None
    kind = "self_device_time_total" if on_card else "self_cpu_time_total"
    taken = {event.key: float(getattr(event, kind)) for event in profiler.key_averages()}
    total = sum(taken.values())
    for operation in sorted(taken, key=taken.__getitem__, reverse=True)[:_OPERATIONS]:
        share = taken[operation] / total if total else 0.0
        yield KernelRow(case.width, case.tokens, passes, operation, taken[operation], share)
