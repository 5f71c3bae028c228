"""Parts b and d: a pass of a backbone with and without the branch, recorded, compiled, with other attention kernels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from statistics import median

import torch
from diffusers.models.attention_dispatch import attention_backend
from torch import nn

from gpu_parts.machine import in_turns, medians, seconds_of
from gpu_parts.results import Remark, Row, StepRow, VariantRow
from gpu_parts.subjects import operations, parts_on, subject
from prophy.backbones import backbone_of
from prophy.branch import Attachment, ProPhyBranch, attach
from prophy.memory.stages import Parts
from prophy.routing.trace import MAX_STEPS, TraceRecorder

#: torch's own attention kernels, which need no further package
BACKENDS = ("native", "_native_flash", "_native_cudnn", "_native_efficient")
_SECONDS = 12.0  # of repeats, of a part
_REPEATS = 15


def _pass(name: str, device: torch.device, small: bool) -> tuple[Parts, Attachment, Callable[[], torch.Tensor]]:
    """The parts, the attachment of their branch, and one conditional pass on inputs of the right shapes."""
    one = subject(name, small).without_text_encoder()
    parts = parts_on(one, device)
    step = parts.backbone.step_inputs(parts.transformer, parts.rules, one.clip, parts.pipeline_config, device)
    generator = torch.Generator("cpu").manual_seed(0)
    inputs = {
        key: torch.randn(value.shape, generator=generator).to(value) if _is_noise(value) else value
        for key, value in step.arguments.items()
    }

    @torch.no_grad()
    def call() -> torch.Tensor:
        with parts.transformer.cache_context("cond"):
            return parts.transformer(**inputs, return_dict=False)[0]

    return parts, attach(parts.transformer, parts.branch), call


def _is_noise(value: object) -> bool:
    """Latents and texts are; timesteps and rotary positions keep what they are."""
    return isinstance(value, torch.Tensor) and value.ndim >= 3


def measure_steps(name: str, device: torch.device, small: bool) -> Iterator[Row]:
    """Median seconds of a pass: the backbone alone, with its branch, and with the routing recorded.

    Raises:
        Unfit: the weights do not fit on the card.
    """
    one = subject(name, small)
    parts, attachment, call = _pass(name, device, small)
    grid = parts.rules.grid(one.clip.frames, one.clip.height, one.clip.width)
    recorder = TraceRecorder(grid, MAX_STEPS)

    def alone() -> None:
        with attachment.switched(False):
            call()

    def recorded() -> None:
        with attachment.observe(recorder.record):
            call()

    taken = in_turns({"alone": alone, "with": call, "recorded": recorded}, device, repeats=_REPEATS, seconds=_SECONDS)
    found = medians(taken)
    counted = operations(one, device.type)
    rows = 1 if not parts.backbone.passes_together or not one.clip.guided else 2
    yield StepRow(
        model=name,
        tokens=rows * grid.num_tokens,
        repeats=len(taken["alone"]),
        alone=found["alone"],
        with_branch=found["with"],
        recording=found["recorded"],
        operations_alone=counted.backbone,
        operations_with=counted.backbone + counted.branch,
    )


def measure_variants(name: str, device: torch.device, small: bool) -> Iterator[Row]:
    """A pass with the branch: with each attention kernel, then with the repeated blocks compiled.

    Raises:
        Unfit: the weights do not fit on the card.
    """
    parts, _, call = _pass(name, device, small)
    yield _variant(name, "as it is", call, device, nullcontext())
    for backend in BACKENDS:
        try:
            yield _variant(name, f"attention {backend}", call, device, attention_backend(backend))
        except (RuntimeError, ValueError, NotImplementedError) as error:
            yield _refused(f"{name}: attention {backend}", error)
    for block in compiled_blocks(parts.transformer, parts.branch):
        block.compile(fullgraph=True)
    try:
        yield _variant(name, "blocks compiled", call, device, nullcontext())
    except Exception as error:  # a compiler's own kinds, none of them the measurement's fault
        yield _refused(f"{name}: compiled blocks", error)


def _refused(what: str, error: Exception) -> Remark:
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    lines = str(error).strip().splitlines()
    return Remark(f"{what}: it does not run here ({lines[0] if lines else type(error).__name__})")


def compiled_blocks(transformer: nn.Module, branch: ProPhyBranch) -> list[nn.Module]:
    """The repeated blocks; not the branch's last, whose parts are called one by one."""
    return [*backbone_of(transformer).blocks(transformer), *list(branch.blocks)[:-1]]


def _variant(
    name: str,
    variant: str,
    call: Callable[[], object],
    device: torch.device,
    inside: AbstractContextManager[object],
) -> VariantRow:
    with inside:
        first = seconds_of(call, device)
        taken = [seconds_of(call, device)]
        began = time.perf_counter()
        while len(taken) < _REPEATS and (len(taken) < 3 or time.perf_counter() - began < _SECONDS / 3):
            taken.append(seconds_of(call, device))
    return VariantRow(name, variant, median(taken), first)
