"""``load``: a base model of any family, opened with its branch and placed in a memory profile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from prophy.assets import default_model
from prophy.backbones.pipeline import (
    BranchSource,
    ProPhyPipeline,
    check_class,
    pipeline_classes,
    published_like_pipeline,
    read_index,
)
from prophy.catalogue.describe import hub_id
from prophy.catalogue.limits import ClipSize, GenerationDefaults
from prophy.catalogue.lora import LoraSource
from prophy.memory.offload import apply, present
from prophy.memory.plan import plan_parts
from prophy.memory.profiles import AUTO, OffloadMode, Profile
from prophy.memory.stages import parts_of


def load(
    model: str | Path | None = None,
    branch: BranchSource = None,
    dtype: torch.dtype | None = None,
    *,
    loras: Sequence[str | Path | LoraSource] = (),
    variant: str | None = None,
    profile: str = AUTO,
    device: torch.device | str | None = None,
    clip: ClipSize | None = None,
    **components: nn.Module,
) -> ProPhyPipeline:
    """Open a base model of any supported family and, beside it, a branch, and place both for generating.

    Args:
        model: a diffusers folder, a hub id or a name in :data:`prophy.catalogue.published.PUBLISHED`; default: the
            embedded model.
        branch: a folder, a hub id or the branch itself; default: the one saved inside ``model``, if there is one.
            False opens the backbone alone, and what it makes is recorded as made by it alone.
        dtype: of the weights; default: bfloat16 on an accelerator, float32 on the CPU.
        loras: of the backbone, as :meth:`prophy.catalogue.lora.LoraSource.parse` reads them.
        variant: of the weights, such as ``fp16``; default: the plain ones, or the only ones there are.
        profile: a memory profile by its name, see :data:`prophy.memory.profiles.PROFILES`; ``auto`` plans which is the
            fastest that fits the accelerator's free memory.
        device: default: the accelerator, if there is one.
        clip: what ``auto`` plans for; default: the clip that the published model is recommended for.
        components: parts to use instead of the base's, by their names there: a fine-tuned ``transformer``, say.

    Raises:
        As :meth:`prophy.backbones.pipeline.ProPhyPipeline.from_pretrained` and its ``add_loras``; and ValueError for
        an unknown profile or device, a dtype of one byte, or when no profile fits.
    """
    wanted = [LoraSource.parse(one) for one in loras]
    for one in wanted:
        one.file()  # before minutes are spent
    if profile != AUTO:
        Profile.parse(profile)  # before minutes are spent
    base = default_model() if model is None else hub_id(model)
    index = read_index(base)
    check_class(base, index)
    device = accelerator() if device is None else present(device)
    if dtype is None:
        dtype = default_dtype(device)
    if dtype.itemsize == 1:
        raise ValueError(
            f"weights of {str(dtype).removeprefix('torch.')} do not compute: load in bfloat16, then store them so with "
            "pipeline.transformer.enable_layerwise_casting"
        )
    pipeline = pipeline_classes()[index["_class_name"]].from_pretrained(
        base, branch=branch, dtype=dtype, variant=variant, **components
    )
    pipeline.add_loras(wanted)
    place(pipeline, profile, device=device, clip=clip)
    return pipeline


def accelerator() -> torch.device:
    """What is computed on unless told otherwise: the accelerator, if there is one, or the CPU."""
    # without the check, a build for CUDA names it on machines that have none
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """Of the weights: bfloat16 on an accelerator, float32 on the CPU."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def place(
    pipeline: ProPhyPipeline, profile: str = AUTO, *, device: torch.device | None = None, clip: ClipSize | None = None
) -> None:
    """Put an opened pipeline into a memory profile; one that is in another leaves it first.

    Args:
        pipeline: opened by :func:`load`.
        profile: by its name; ``auto`` plans which is the fastest that fits the accelerator's free memory.
        device: default: the accelerator, if there is one.
        clip: what ``auto`` plans for; default: the clip that the published model is recommended for.

    Raises:
        ValueError: an unknown profile or device, or no profile fits.
    """
    device = accelerator() if device is None else present(device)
    wanted = Profile(OffloadMode.ALL) if profile == AUTO else Profile.parse(profile)
    if profile == AUTO and device.type == "cuda":
        wanted = fastest_profile(pipeline, torch.cuda.mem_get_info(device)[0], clip)
    apply(pipeline, wanted, device)


def fastest_profile(pipeline: ProPhyPipeline, vram: int, clip: ClipSize | None = None) -> Profile:
    """The fastest memory profile that fits.

    Args:
        pipeline: opened.
        vram: bytes of the accelerator that are free.
        clip: what to make; default: the clip that the published model is recommended for.

    Raises:
        ValueError: none fits; one line that names the smallest and the cure.
    """
    if clip is None:
        known = published_like_pipeline(pipeline)
        clip = (GenerationDefaults() if known is None else known.defaults).clip
    made = plan_parts(parts_of(pipeline), clip, vram=vram)
    if made.chosen is None:
        raise ValueError(made.reason)
    return made.chosen
