"""What a model will need before it is downloaded: the size of each part, the peak of each memory profile, which to use.

From shapes alone: every stage runs once on the meta device (``prophy.memory.footprint``). Peaks are exact for the
tensors of the stock code, and within a few per cent of what a process on the CPU really takes
(``benchmarks/plan.py``); offloading is counted as it is laid out, unmeasured. Times are estimates from the bytes and
operations counted and the rates assumed, which the printed plan names.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from prophy.catalogue.describe import ModelConfig
from prophy.catalogue.limits import ClipSize
from prophy.memory.peaks import PartSize, ProfilePlan, Rates, count, profile_plan, sizes
from prophy.memory.profiles import PROFILES, Profile
from prophy.memory.stages import Parts, open_parts

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """See :func:`plan`.

    Attributes:
        model: its name.
        clip: what to make.
        dtype: of the weights, as torch names it.
        vram: bytes of the accelerator; None: not said.
        reserve: bytes of it that are left to the driver, the libraries and fragmentation.
        parts: the sizes.
        profiles: one plan for each profile, from fast to small.
        chosen: the fastest profile that fits; None when none fits or ``vram`` was not said.
        reason: why, in a sentence.
        rates: what the slow-downs assume.
    """

    model: str
    clip: ClipSize
    dtype: str
    vram: int | None
    reserve: int
    parts: tuple[PartSize, ...]
    profiles: tuple[ProfilePlan, ...]
    chosen: Profile | None
    reason: str
    rates: Rates

    def of(self, profile: Profile) -> ProfilePlan:
        """What one profile needs."""
        return next(entry for entry in self.profiles if entry.profile == profile)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; sizes in bytes."""
        return {
            "model": self.model,
            "clip": asdict(self.clip),
            "dtype": self.dtype,
            "vram": self.vram,
            "reserve": self.reserve,
            "parts": [asdict(part) for part in self.parts],
            "profiles": [
                {
                    "profile": str(entry.profile),
                    "peak": entry.peak.total,
                    "stages": [{**asdict(stage), "stage": str(stage.stage)} for stage in entry.stages],
                    "slow_down": round(entry.slow_down, 3),
                }
                for entry in self.profiles
            ],
            "chosen": None if self.chosen is None else str(self.chosen),
            "reason": self.reason,
            "rates": asdict(self.rates),
        }


#: Left to the CUDA context, the libraries' workspaces and the allocator's fragmentation: ours, not measured.
RESERVE = round(0.75 * GIB)


def plan(
    model: str | Path | ModelConfig,
    clip: ClipSize,
    *,
    dtype: torch.dtype = torch.bfloat16,
    vram: int | None = None,
    branch: str | Path | Literal[False] | None = None,
    device: str = "cuda",
    rates: Rates | None = None,
) -> Plan:
    """Plan the memory of a model and a clip; opens no weights.

    Args:
        model: a name in :data:`prophy.catalogue.published.PUBLISHED`, a diffusers folder, a hub id, or a model
            described.
        clip: what to make.
        dtype: of the weights.
        vram: bytes of the accelerator; None chooses nothing.
        branch: a branch's folder, or False for the backbone alone; see :func:`prophy.memory.stages.open_parts`.
        device: ``cuda`` or ``cpu``: whose kernels would run.
        rates: what the times assume.

    Raises:
        ValueError: no such model or branch, a clip that it cannot make, memory below zero. One line.
    """
    return plan_parts(open_parts(model, branch, dtype), clip, vram=vram, device=device, rates=rates)


def plan_parts(
    parts: Parts, clip: ClipSize, *, vram: int | None = None, device: str = "cuda", rates: Rates | None = None
) -> Plan:
    """:func:`plan`, of parts on the meta device.

    Raises:
        ValueError: a clip that the model cannot make, configurations that cannot be computed, memory below zero. One
            line.
    """
    if vram is not None and not vram > 0:
        raise ValueError(f"{vram / GIB:g} GiB of accelerator memory: give a number above 0")
    rates = rates or Rates()
    try:
        counted = count(parts, clip, device)
    except (TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{parts.name} cannot compute what its configurations say ({said}): copy it again") from error
    profiles = tuple(profile_plan(parts, clip, profile, counted, device, rates) for profile in PROFILES)
    fastest = profiles[0].seconds(parts.steps)
    profiles = tuple(replace(entry, slow_down=entry.seconds(parts.steps) / fastest) for entry in profiles)
    chosen, reason = choose(profiles, vram)
    return Plan(
        model=parts.name,
        clip=clip,
        dtype=str(parts.transformer.dtype).removeprefix("torch."),
        vram=vram,
        reserve=RESERVE,
        parts=sizes(parts),
        profiles=profiles,
        chosen=chosen,
        reason=reason,
        rates=rates,
    )


def choose(profiles: tuple[ProfilePlan, ...], vram: int | None) -> tuple[Profile | None, str]:
    """The fastest profile that fits into so many bytes, None if none does; and why, in a sentence."""
    smallest = min(profiles, key=lambda entry: entry.peak.total)
    if vram is None:
        least = (smallest.peak.total + RESERVE) / GIB
        return None, f"say how much memory there is to have a profile chosen: the smallest needs {least:.1f} GiB"
    fitting = [entry for entry in profiles if entry.peak.total + RESERVE <= vram]
    if not fitting:
        return None, (
            f"no profile fits: even {smallest.profile} needs {(smallest.peak.total + RESERVE) / GIB:.1f} GiB during "
            f"{smallest.peak.stage}; make the clip smaller or shorter"
        )
    best = min(fitting, key=lambda entry: entry.slow_down)
    faster = [entry for entry in profiles if entry.slow_down < best.slow_down]
    if not faster:
        return best.profile, "nothing is faster, and it fits"
    nearest = min(faster, key=lambda entry: entry.peak.total)
    return best.profile, (
        f"the fastest that fits: {nearest.profile}, the next faster, needs "
        f"{(nearest.peak.total + RESERVE) / GIB:.1f} GiB during {nearest.peak.stage}"
    )
