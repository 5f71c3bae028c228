"""Putting a pipeline into a memory profile (:mod:`prophy.memory.profiles`), and what to do when memory runs out.

All of it is diffusers' and accelerate's own offloading, set around a branch that is attached already (any other order
loses the branch), except for the branch itself: its last block and its heads are called part by part, which offloading
by layers does not see, so they travel as one.
"""

from __future__ import annotations

import gc
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import accelerate
import torch
from diffusers.hooks import HookRegistry, apply_group_offloading
from diffusers.hooks.group_offloading import (
    GroupOffloadingConfig,
    GroupOffloadingHook,
    GroupOffloadingType,
    ModuleGroup,
)
from diffusers.utils.torch_utils import empty_device_cache
from torch import nn

from prophy.branch import ProPhyBranch
from prophy.memory.profiles import OffloadMode, Profile, Stage, next_profile

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_CPU = torch.device("cpu")
#: of diffusers, that move groups of modules; the last one outside
GROUP_HOOKS = ("lazy_prefetch_group_offloading", "layer_execution_tracker", "group_offloading")


# --- putting a pipeline into a profile -------------------------------------------------------------------------------


def apply(pipeline: DiffusionPipeline, profile: Profile, device: torch.device | str) -> None:
    """Put a loaded pipeline into a profile; one that is in another profile leaves it first.

    Every mode runs on the CPU too, where only ``sequential`` moves anything: for tests.

    Args:
        pipeline: with its branch attached, if it has one.
        profile: which.
        device: the accelerator.

    Raises:
        ValueError: torch has no such device here.
    """
    device = _present(device)
    _withdraw(pipeline)
    if profile.tiling:
        pipeline.vae.enable_tiling()
    else:
        pipeline.vae.disable_tiling()
    _PLACED[profile.mode](pipeline, device)
    pipeline.memory_profile = profile
    pipeline.rearranged = partial(_rearranged, pipeline, profile.mode, device)


@contextmanager
def _rearranged(pipeline: DiffusionPipeline, mode: OffloadMode, device: torch.device) -> Iterator[None]:
    """Inside, a pipeline in a profile has no hooks, so that its modules can be replaced; then all is as before."""
    if mode is not OffloadMode.ALL:
        _withdraw(pipeline)
    try:
        yield
    finally:
        _PLACED[mode](pipeline, device)


def _present(device: torch.device | str) -> torch.device:
    """The device with its index."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"torch has no device {str(device)!r} here: use cpu, or a torch build for it") from None


def profile_of(pipeline: DiffusionPipeline) -> Profile:
    """The profile that :func:`apply` put a pipeline into; ``all`` for any other."""
    return getattr(pipeline, "memory_profile", Profile(OffloadMode.ALL))


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's ``state_dict`` with its content, also while ``sequential`` keeps that elsewhere."""
    state = module.state_dict()
    for prefix, part in module.named_modules(remove_duplicate=False):
        hook = getattr(part, "_hf_hook", None)
        for one in getattr(hook, "hooks", [hook]):  # accelerate's own reader of offloaded weights forgets the outermost
            kept = getattr(one, "weights_map", None)
            if kept is None:
                continue
            for name, _ in (*part.named_parameters(recurse=False), *part.named_buffers()):
                key = f"{prefix}.{name}" if prefix else name
                if key in state and state[key].is_meta:
                    state[key] = kept[name]
    return state


def _modules(pipeline: DiffusionPipeline) -> dict[str, nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


def _withdraw(pipeline: DiffusionPipeline) -> None:
    """Take every offloading hook off and bring the weights together on the CPU; the branch stays attached."""
    pipeline.remove_all_hooks()
    for part in _modules(pipeline).values():
        for module in part.modules():
            registry = getattr(module, "_diffusers_hook", None)
            if registry is None:
                continue
            for name in GROUP_HOOKS:
                registry.remove_hook(name, recurse=False)
        if hasattr(part, "_diffusers_hook"):
            part._diffusers_hook.invalidate_child_registries_cache()
        part.to(_CPU)


def _all(pipeline: DiffusionPipeline, device: torch.device) -> None:
    for part in _modules(pipeline).values():
        part.to(device)


def _model(pipeline: DiffusionPipeline, device: torch.device) -> None:
    """The branch is no part of the stock order: it comes when it is first called and stays until the clip is done."""
    pipeline.enable_model_cpu_offload(device=device.type if device.type == "cpu" else device)


def _group(pipeline: DiffusionPipeline, device: torch.device) -> None:
    """The autoencoder stays: it is the smallest part, and nothing tells the others to make room for it."""
    for name, part in _modules(pipeline).items():
        if isinstance(part, ProPhyBranch):
            _offload_branch(part, device)
        elif name == "vae":
            part.to(device)
        else:
            text = name.startswith("text_encoder")
            apply_group_offloading(
                part,
                onload_device=device,
                offload_device=_CPU,
                offload_type=GroupOffloadingType.BLOCK_LEVEL,
                num_blocks_per_group=1,
                # with a stream the next block comes while this one computes; the text encoder runs too rarely to gain,
                # and its embedding, which two groups share, would be kept twice
                use_stream=streams(device.type) and not text,
                block_modules=text_stacks(part) if text else None,
            )


def _sequential(pipeline: DiffusionPipeline, device: torch.device) -> None:
    """As ``enable_sequential_cpu_offload``, which would hand the branch over whole."""
    for part in _modules(pipeline).values():
        if isinstance(part, ProPhyBranch):
            _offload_branch(part, device)
        else:
            accelerate.cpu_offload(part, device, offload_buffers=len(part._parameters) > 0)


_PLACED = {
    OffloadMode.ALL: _all,
    OffloadMode.MODEL: _model,
    OffloadMode.GROUP: _group,
    OffloadMode.SEQUENTIAL: _sequential,
}


def streams(device_type: str) -> bool:
    """Whether ``group`` brings the next block while one computes; then two are on the accelerator."""
    return device_type == "cuda"


def text_stacks(encoder: nn.Module) -> list[str]:
    """Names of the children whose blocks travel one by one: T5's and BERT's lie one level down."""
    return [name for name, _ in encoder.named_children() if name == "encoder"]


def branch_groups(branch: ProPhyBranch) -> tuple[list[nn.Module], list[nn.Module]]:
    """How a branch travels: what comes with its call, and the blocks that come one at a time.

    The last block is among the first: the Refinement Expert Block sits inside it, so it is never called as a whole.
    """
    alone = list(branch.blocks[:-1])
    together = [child for name, child in branch.named_children() if name != "blocks"]
    return [*together, branch.blocks[-1]], alone


def _offload_branch(branch: ProPhyBranch, device: torch.device) -> None:
    together, alone = branch_groups(branch)
    config = GroupOffloadingConfig(
        onload_device=device,
        offload_device=_CPU,
        offload_type=GroupOffloadingType.BLOCK_LEVEL,
        non_blocking=False,
        record_stream=False,
        low_cpu_mem_usage=False,
        num_blocks_per_group=1,
    )
    for leader, modules in ((branch, together), *((block, [block]) for block in alone)):
        group = ModuleGroup(
            modules, offload_device=_CPU, onload_device=device, offload_leader=leader, onload_leader=leader
        )
        hook = GroupOffloadingHook(group, config=config)
        HookRegistry.check_if_exists_or_initialize(leader).register_hook(hook, "group_offloading")


def collect() -> None:
    """Give back the memory of a pipeline that nothing refers to any more: offloading hooks refer to each other."""
    gc.collect()
    if torch.accelerator.is_available():
        empty_device_cache()


# --- when memory runs out --------------------------------------------------------------------------------------------


class OutOfMemory(ValueError):
    """Memory ran out. The message is one line that names the stage and the profile to try next.

    Attributes:
        stage: what was being done.
        profile: the profile it was done in.
        next_profile: the one to try; None when no profile needs less.
    """

    def __init__(self, stage: Stage, profile: Profile, wanted: str = "") -> None:
        self.stage, self.profile, self.next_profile = stage, profile, next_profile(profile, stage)
        cure = (
            "make the clip smaller or shorter: no memory profile needs less"
            if self.next_profile is None
            else f"use the memory profile {self.next_profile}"
        )
        wanted = f" ({wanted} more were asked for)" if wanted else ""
        super().__init__(f"memory ran out during {stage} in the profile {profile}{wanted}: {cure}")


@dataclass
class Watch:
    """What :func:`watch_memory` yields; set ``stage`` as the work goes on."""

    stage: Stage


@contextmanager
def watch_memory(profile: Profile, stage: Stage = Stage.DENOISING) -> Iterator[Watch]:
    """Turn a failed allocation inside the block into :class:`OutOfMemory`, of the accelerator's memory or the host's.

    The tensors that the failed call held are let go of, so that another profile can be tried at once.

    Raises:
        OutOfMemory: an allocation failed.
    """
    watch = Watch(stage)
    try:
        yield watch
    except (RuntimeError, MemoryError) as error:
        if not _is_shortage(error):
            raise
        traceback.clear_frames(error.__traceback__)  # its frames hold the tensors
        if torch.accelerator.is_available():
            empty_device_cache()
        raise OutOfMemory(watch.stage, profile, _wanted(str(error))) from None


def _is_shortage(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _wanted(message: str) -> str:
    """The size that could not be had, as the allocator's message gives it."""
    found = re.search(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]iB)", message, re.IGNORECASE)
    if found is None:
        return ""
    amount, unit = found.groups()
    return f"{float(amount) / 2**30:.1f} GiB" if unit == "bytes" else f"{amount} {unit}"
