"""Part a: the peak of every memory profile and stage, against the plan; what each profile costs in time.

Real generations of two denoising steps, by :func:`prophy.generation.generate.generate`, on a pipeline of random weights
that :func:`prophy.memory.offload.apply` put into each mode; once more with the autoencoder in tiles, of one step and
without guidance, since only the decoding differs. Between two looks at the clock the card has finished.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from gpu_parts.machine import MemoryMeter, Unfit, let_go, seconds_of, settle
from gpu_parts.results import CardRow, ProfileRow, Remark, Row, TransferRow
from gpu_parts.subjects import PROMPT, Subject, pipeline_on, planned, subject
from prophy.backbones import backbone_of
from prophy.backbones.pipeline import ProPhyPipeline, transformers_of
from prophy.generation.generate import generate
from prophy.generation.settings import GenerationSettings
from prophy.memory.offload import OutOfMemory, apply
from prophy.memory.peaks import ProfilePlan
from prophy.memory.profiles import OffloadMode, Profile, Stage

_STEPS = 2  # the first also brings what a profile moves once
_MOVED_BYTES = 2**30


@dataclass
class _Taken:
    """What a stage took so far."""

    allocated: int = 0
    reserved: int = 0
    seconds: float = 0.0


class StageMeter:
    """Memory and time of each stage of a generation, told apart by which module is called.

    Attributes:
        taken: by stage.
    """

    def __init__(self, device: torch.device, memory: MemoryMeter) -> None:
        self.taken: dict[Stage, _Taken] = {}
        self._device, self._memory = device, memory
        self._stage: Stage | None = None
        self._since = 0.0
        self._passes: list[float] = []  # when each pass of a transformer began, and the decoding

    def enter(self, stage: Stage | None) -> None:
        """What follows belongs to a stage; None: to none."""
        settle(self._device)
        if self._stage is not None:
            taken = self.taken.setdefault(self._stage, _Taken())
            taken.allocated = max(taken.allocated, self._memory.highest())
            taken.reserved = max(taken.reserved, self._memory.reserved())
            taken.seconds += time.perf_counter() - self._since
        self._memory.begin()
        self._stage, self._since = stage, time.perf_counter()

    def begin_pass(self, *_: object) -> None:
        """A transformer is called: a forward pre-hook."""
        self.enter(Stage.DENOISING)
        self._passes.append(self._since)

    def begin_branch(self, *_: object) -> None:
        """The branch is called: a forward pre-hook."""
        self.enter(Stage.BRANCH)

    def end_branch(self, *_: object) -> None:
        """It is done: a forward hook."""
        self.enter(Stage.DENOISING)

    def begin_decoding(self) -> None:
        self.enter(Stage.DECODING)
        self._passes.append(self._since)

    def last_step(self, passes: int) -> float:
        """Seconds of the last denoising step, of so many passes."""
        return self._passes[-1] - self._passes[-1 - passes]


@contextmanager
def watched(pipeline: ProPhyPipeline, meter: StageMeter) -> Iterator[None]:
    """Inside, a generation of the pipeline tells the meter which stage it is in."""
    handles = [module.register_forward_pre_hook(meter.begin_pass) for module in transformers_of(pipeline)]
    handles.append(pipeline.branch.register_forward_pre_hook(meter.begin_branch))
    handles.append(pipeline.branch.register_forward_hook(meter.end_branch))
    decode = pipeline.vae.decode

    def decoded(*args: Any, **kwargs: Any) -> Any:
        meter.begin_decoding()
        return decode(*args, **kwargs)

    pipeline.vae.decode = decoded
    meter.enter(Stage.TEXT)
    try:
        yield
    finally:
        del pipeline.vae.decode
        for handle in handles:
            handle.remove()
        meter.enter(None)


def measure_profiles(name: str, device: torch.device, small: bool) -> Iterator[Row]:
    """Every profile of one model, from fast to small; a profile that does not fit is named.

    Raises:
        Unfit: the weights do not fit on the card.
    """
    one = subject(name, small)
    meter, plan = MemoryMeter(device), planned(one, device.type)
    pipeline = pipeline_on(one, device)
    for mode in OffloadMode:
        profile = Profile(mode)
        try:
            if mode is not OffloadMode.ALL:  # which it was built in
                apply(pipeline, profile, device)
            yield from _rows(one, pipeline, plan.of(profile), device, meter)
            pipeline.vae.enable_tiling()  # all that tells mode+tiling from mode
            pipeline.memory_profile = replace(profile, tiling=True)
            yield from _rows(one, pipeline, plan.of(pipeline.memory_profile), device, meter)
        except (OutOfMemory, torch.OutOfMemoryError) as error:
            yield Remark(f"{name} {one.size}, {profile}: {str(error).strip().splitlines()[0]}")
            let_go(device)
    yield CardRow(name, meter.outside())


def _rows(
    one: Subject,
    pipeline: ProPhyPipeline,
    plan: ProfilePlan,
    device: torch.device,
    memory: MemoryMeter,
) -> Iterator[ProfileRow]:
    let_go(device)
    clip, profile = one.clip, plan.profile
    steps, guidance = (1, 1.0) if profile.tiling else (_STEPS, 5.0)
    settings = GenerationSettings(
        PROMPT, steps=steps, guidance=guidance, frames=clip.frames, height=clip.height, width=clip.width
    )
    meter = StageMeter(device, memory)
    with watched(pipeline, meter):
        generate(pipeline, settings)
    passes = 1 if backbone_of(pipeline.transformer).passes_together else 2
    for peak in plan.stages:
        if profile.tiling and peak.stage is not Stage.DECODING:
            continue
        taken = meter.taken[peak.stage]
        denoising = peak.stage is Stage.DENOISING
        yield ProfileRow(
            model=one.name,
            size=one.size,
            profile=str(profile),
            stage=str(peak.stage),
            predicted=peak.total,
            allocated=taken.allocated,
            reserved=taken.reserved,
            seconds=meter.last_step(passes) if denoising else taken.seconds,
            planned=plan.step if denoising else 0.0,
        )


def measure_transfers(device: torch.device, small: bool) -> Iterator[TransferRow]:
    """Bytes a second to the card, from ordinary and from pinned memory: what the plan assumes of offloading.

    Raises:
        Unfit: there is no card.
    """
    if device.type != "cuda":
        raise Unfit("nothing to move weights to: there is no card")
    moved = 2**20 if small else _MOVED_BYTES
    there = torch.empty(moved, dtype=torch.uint8, device=device)
    for kind, here in (
        ("pageable", torch.ones(moved, dtype=torch.uint8)),
        ("pinned", torch.ones(moved, dtype=torch.uint8, pin_memory=True)),
    ):
        move = partial(there.copy_, here, non_blocking=True)
        seconds_of(move, device)
        yield TransferRow(kind, moved / min(seconds_of(move, device) for _ in range(3)))
