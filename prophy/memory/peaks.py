"""What the parts of a pipeline weigh; the highest need of memory and the time of each profile, from shapes alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from prophy.catalogue.limits import ClipSize
from prophy.memory.footprint import Footprint, footprint
from prophy.memory.offload import branch_groups, streams, text_stacks
from prophy.memory.profiles import OffloadMode, Profile, Stage
from prophy.memory.stages import Parts, computations, passes


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


# --- what is counted -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """The footprint of each stage; decoding by whether it is tiled."""

    stages: dict[Stage, Footprint]
    decoding: dict[bool, Footprint]

    def of(self, stage: Stage, tiling: bool) -> Footprint:
        return self.decoding[tiling] if stage is Stage.DECODING else self.stages[stage]


def count(parts: Parts, clip: ClipSize, device: str) -> Counted:
    """Run every stage of a clip once on the meta device."""
    stages: dict[Stage, Footprint] = {}
    decoding: dict[bool, Footprint] = {}
    with _without_blending(parts.vae):
        for tiling in (False, True):
            for stage, compute in computations(parts, clip, "meta", tiling).items():
                if stage is Stage.DECODING:
                    decoding[tiling] = footprint(compute, device, repeated=[parts.vae.decoder])
                elif not tiling:
                    stages[stage] = footprint(compute, device)
    return Counted(stages, decoding)


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


def sizes(parts: Parts) -> tuple[PartSize, ...]:
    """The parts of the pipeline; there is no branch where none was asked for."""
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


def profile_plan(
    parts: Parts, clip: ClipSize, profile: Profile, counted: Counted, device: str, rates: Rates
) -> ProfilePlan:
    """What one profile needs, from what was counted."""
    weights = _WEIGHTS[profile.mode](parts, device)
    stages = tuple(
        StagePeak(stage, weights[stage], counted.of(stage, profile.tiling).peak)
        for stage in Stage
        if stage is Stage.DECODING or stage in counted.stages
    )
    return ProfilePlan(profile, stages, *_seconds(parts, clip, profile, counted, device, rates))


def _weights_all(parts: Parts, device: str) -> dict[Stage, int]:
    total = sum(size.nbytes * size.count for size in sizes(parts))
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
    parts: Parts, clip: ClipSize, profile: Profile, counted: Counted, device: str, rates: Rates
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
