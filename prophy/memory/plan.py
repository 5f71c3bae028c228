"""What a model will need before it is downloaded: the size of each part, the peak of each memory profile, which to use.

From shapes alone: every stage runs once on the meta device (``prophy.memory.footprint``). Peaks are exact for the
tensors of the stock code, and within a few per cent of what a process on the CPU really takes
(``benchmarks/plan.py``); offloading is counted as it is laid out, unmeasured. Times are estimates from the bytes and
operations counted and the rates assumed, which the printed plan names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from prophy.catalogue.describe import ModelConfig
from prophy.catalogue.limits import ClipSize
from prophy.memory.footprint import Footprint, footprint
from prophy.memory.offload import branch_groups, streams, text_stacks
from prophy.memory.profiles import PROFILES, OffloadMode, Profile, Stage
from prophy.memory.stages import Parts, computations, open_parts, passes

GIB = 2**30


@dataclass(frozen=True)
class Rates:
    """What an estimate of time assumes.

    Attributes:
        flops: sustained floating-point operations a second: half the peak of a good consumer card in bfloat16.
        pinned: bytes a second to the accelerator from pinned memory: PCIe 4.0 ×16, less its overhead.
        pageable: the same from ordinary memory, which is copied twice.
    """

    flops: float = 80e12
    pinned: float = 20e9
    pageable: float = 8e9


@dataclass(frozen=True)
class PartSize:
    """A part of the pipeline: its parameters, their bytes, and how many of it there are."""

    name: str
    parameters: int
    nbytes: int
    count: int = 1


@dataclass(frozen=True)
class StagePeak:
    """The most that is on the accelerator during a stage: bytes of weights, and of everything else."""

    stage: Stage
    weights: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.activations


@dataclass(frozen=True)
class ProfilePlan:
    """What one profile needs.

    Attributes:
        profile: which.
        stages: its peaks, in the order of the work.
        once: estimated seconds of everything but the denoising steps.
        step: estimated seconds of one denoising step.
        slow_down: estimated time of a generation of the recommended steps over that of ``all``.
    """

    profile: Profile
    stages: tuple[StagePeak, ...]
    once: float
    step: float
    slow_down: float = 1.0

    def seconds(self, steps: int) -> float:
        """Estimated, of a generation."""
        return self.once + steps * self.step

    @property
    def peak(self) -> StagePeak:
        return max(self.stages, key=lambda stage: stage.total)


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
        counted = _count(parts, clip, device)
    except (TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{parts.name} cannot compute what its configurations say ({said}): copy it again") from error
    profiles = tuple(_profile(parts, clip, profile, counted, device, rates) for profile in PROFILES)
    fastest = profiles[0].seconds(parts.steps)
    profiles = tuple(replace(entry, slow_down=entry.seconds(parts.steps) / fastest) for entry in profiles)
    chosen, reason = choose(profiles, vram)
    return Plan(
        model=parts.name,
        clip=clip,
        dtype=str(parts.transformer.dtype).removeprefix("torch."),
        vram=vram,
        reserve=RESERVE,
        parts=_sizes(parts),
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


# --- what is counted -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Counted:
    """The footprint of each stage; decoding by whether it is tiled."""

    stages: dict[Stage, Footprint]
    decoding: dict[bool, Footprint]

    def of(self, stage: Stage, tiling: bool) -> Footprint:
        return self.decoding[tiling] if stage is Stage.DECODING else self.stages[stage]


def _count(parts: Parts, clip: ClipSize, device: str) -> _Counted:
    stages: dict[Stage, Footprint] = {}
    decoding: dict[bool, Footprint] = {}
    with _without_blending(parts.vae):
        for tiling in (False, True):
            for stage, compute in computations(parts, clip, "meta", tiling).items():
                if stage is Stage.DECODING:
                    decoding[tiling] = footprint(compute, device, repeated=[parts.vae.decoder])
                elif not tiling:
                    stages[stage] = footprint(compute, device)
    return _Counted(stages, decoding)


@contextmanager
def _without_blending(vae: nn.Module) -> Iterator[None]:
    """Blending two tiles works in place, a row of pixels at a time: nothing to count, and most of the operations."""
    vae.blend_v = vae.blend_h = lambda above, tile, extent: tile
    try:
        yield
    finally:
        del vae.blend_v, vae.blend_h


def _nbytes(*modules: nn.Module) -> int:
    """Of the weights, each once."""
    tensors = {id(tensor): tensor.nbytes for module in modules for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensors.values())


def _sizes(parts: Parts) -> tuple[PartSize, ...]:
    modules = {
        "text encoder": (parts.text_encoder, 1),
        "transformer": (parts.transformer, parts.transformers),
        "branch": (parts.branch, 1),
        "autoencoder": (parts.vae, 1),
    }
    return tuple(
        PartSize(name, sum(p.numel() for p in module.parameters()), _nbytes(module), count)
        for name, (module, count) in modules.items()
        if module is not None
    )


# --- what is where, in each mode -------------------------------------------------------------------------------------


def _profile(
    parts: Parts, clip: ClipSize, profile: Profile, counted: _Counted, device: str, rates: Rates
) -> ProfilePlan:
    weights = _WEIGHTS[profile.mode](parts, device)
    stages = tuple(
        StagePeak(stage, weights[stage], counted.of(stage, profile.tiling).peak)
        for stage in Stage
        if stage is Stage.DECODING or stage in counted.stages
    )
    return ProfilePlan(profile, stages, *_seconds(parts, clip, profile, counted, device, rates))


def _weights_all(parts: Parts, device: str) -> dict[Stage, int]:
    total = sum(size.nbytes * size.count for size in _sizes(parts))
    return dict.fromkeys(Stage, total)


def _weights_model(parts: Parts, device: str) -> dict[Stage, int]:
    branch = 0 if parts.branch is None else _nbytes(parts.branch)
    backbone = _nbytes(parts.transformer)
    return {
        Stage.TEXT: _nbytes(parts.text_encoder),
        Stage.BRANCH: backbone + branch,
        Stage.DENOISING: backbone + branch,
        Stage.DECODING: _nbytes(parts.vae) + branch,  # the branch waits for the end of the clip
    }


def _weights_group(parts: Parts, device: str) -> dict[Stage, int]:
    vae = _nbytes(parts.vae)
    stacks = [getattr(parts.text_encoder, name) for name in text_stacks(parts.text_encoder)]
    text_rest, text_block = _blockwise(parts.text_encoder, stacks or [parts.text_encoder])
    rest, block = _blockwise(parts.transformer, [parts.transformer])
    together, alone = _branch_groups(parts)
    at_once = 2 if streams(device) else 1
    return {
        Stage.TEXT: vae + text_rest + text_block,
        Stage.BRANCH: vae + rest + (at_once - 1) * block + together + alone,
        Stage.DENOISING: vae + rest + at_once * block,
        Stage.DECODING: vae,
    }


def _weights_sequential(parts: Parts, device: str) -> dict[Stage, int]:
    together, alone = _branch_groups(parts)
    direct = sum(p.nbytes for p in parts.transformer.parameters(recurse=False))
    return {
        Stage.TEXT: _layerwise(parts.text_encoder),
        Stage.BRANCH: direct + together + alone,
        Stage.DENOISING: _layerwise(parts.transformer),
        Stage.DECODING: _layerwise(parts.vae),
    }


_WEIGHTS = {
    OffloadMode.ALL: _weights_all,
    OffloadMode.MODEL: _weights_model,
    OffloadMode.GROUP: _weights_group,
    OffloadMode.SEQUENTIAL: _weights_sequential,
}


def _blockwise(module: nn.Module, holders: list[nn.Module]) -> tuple[int, int]:
    """What stays for the whole call, and the largest block; blocks lie in the lists of the holders."""
    lists = [c for holder in holders for c in holder.children() if isinstance(c, nn.ModuleList | nn.Sequential)]
    blocks = [_nbytes(block) for blocks in lists for block in blocks]
    return _nbytes(module) - sum(blocks), max(blocks, default=0)


def _branch_groups(parts: Parts) -> tuple[int, int]:
    if parts.branch is None:
        return 0, 0
    together, alone = branch_groups(parts.branch)
    return _nbytes(*together), max(map(_nbytes, alone), default=0)


def _layerwise(module: nn.Module) -> int:
    """The most that is there at once when each module brings only its own tensors."""
    own = sum(t.nbytes for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
    return own + max(map(_layerwise, module.children()), default=0)


# --- how long it takes -----------------------------------------------------------------------------------------------


def _seconds(
    parts: Parts, clip: ClipSize, profile: Profile, counted: _Counted, device: str, rates: Rates
) -> tuple[float, float]:
    """Estimated time of everything but the steps, and of a step: operations and bytes moved over their rates."""
    encodings = 2 if clip.guided else 1
    calls = passes(parts, clip)
    text, vae, backbone = map(_nbytes, (parts.text_encoder, parts.vae, parts.transformer))
    branch = 0 if parts.branch is None else _nbytes(parts.branch)
    computing = {
        stage: counted.of(stage, profile.tiling).flops / rates.flops for stage in (*counted.stages, Stage.DECODING)
    }
    once = encodings * computing[Stage.TEXT] + computing[Stage.DECODING]
    in_branch, in_backbone = computing.get(Stage.BRANCH, 0.0), computing[Stage.DENOISING]
    if profile.mode is OffloadMode.ALL:
        return once, calls * (in_branch + in_backbone)
    if profile.mode is OffloadMode.MODEL:
        moved = 2 * (text + vae + parts.transformers * backbone + branch)  # there and back
        return once + moved / rates.pageable, calls * (in_branch + in_backbone)
    there_and_back = 2 * branch / rates.pageable
    if profile.mode is OffloadMode.GROUP:
        moving = backbone / rates.pinned
        call = max(in_backbone, moving) if streams(device) else in_backbone + moving
        return once + encodings * 2 * text / rates.pageable, calls * (in_branch + there_and_back + call)
    decodings = parts.rules.latent_shape(clip)[1]
    moved = encodings * text + decodings * vae
    call = in_branch + in_backbone + there_and_back + backbone / rates.pageable
    return once + moved / rates.pageable, calls * call


# --- as text ---------------------------------------------------------------------------------------------------------

_BAR = 28


def describe(made: Plan) -> str:
    """The plan as aligned plain text."""
    clip = made.clip
    lines = [
        f"{made.model}, {clip.width}×{clip.height}, {clip.frames} frames, {made.dtype}",
        "",
        f"{'part':<14} {'parameters':>11} {'size':>10}",
    ]
    for part in made.parts:
        name = part.name if part.count == 1 else f"{part.count} × {part.name}"
        lines.append(f"{name:<14} {part.parameters / 1e6:>9.0f} M {_gib(part.nbytes):>10}")
    total = sum(part.nbytes * part.count for part in made.parts)
    lines += [f"{'together':<14} {'':>11} {_gib(total):>10}   of host memory, in every profile but all", ""]
    scale = made.vram or max(entry.peak.total for entry in made.profiles)
    lines.append(f"{'profile':<19} {'peak':>9} {'weights':>9} {'the rest':>9}  {'during':<13} {'time':>9}")
    for entry in made.profiles:
        peak = entry.peak
        mark = "▸" if entry.profile == made.chosen else " "
        lines.append(
            f"{mark} {entry.profile!s:<17} {_gib(peak.total):>9} {_gib(peak.weights):>9} {_gib(peak.activations):>9}  "
            f"{peak.stage:<13} {entry.slow_down:>8.2f}×  {_bar(peak.total, scale, made)}"
        )
    if made.vram is not None:
        to_use = round(_BAR * (made.vram - made.reserve) / made.vram)
        lines.append(" " * (77 + max(0, to_use)) + f"┊ {_gib(made.vram - made.reserve)} to use")
    chosen = "none" if made.chosen is None else str(made.chosen)
    lines += [
        "",
        f"chosen   {chosen}: {made.reason}" if made.vram is not None else made.reason,
        f"assumed  {_gib(made.reserve)} for driver, libraries and fragmentation; times are estimates for "
        f"{made.rates.flops / 1e12:.0f} TFLOP/s sustained,",
        f"         {made.rates.pinned / 1e9:.0f} GB/s to the accelerator from pinned memory, "
        f"{made.rates.pageable / 1e9:.0f} GB/s from ordinary memory",
    ]
    return "\n".join(lines)


def _gib(nbytes: int) -> str:
    return f"{nbytes / GIB:.2f} GiB"


def _bar(nbytes: int, scale: int, made: Plan) -> str:
    """A bar as long as the need; with a known memory, a mark where that ends, and beyond it the bar breaks."""
    length = round(_BAR * nbytes / scale)
    if made.vram is None:
        return "█" * max(1, length)
    limit = round(_BAR * (made.vram - made.reserve) / made.vram)
    cells = "".join("█" if i < length else "·" for i in range(limit)) + "┊"
    return cells + ("█" * min(4, length - limit) + "»" if length > limit else "")
