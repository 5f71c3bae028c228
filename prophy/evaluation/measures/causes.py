"""What the measures of causes share: which expert is whose, what is done to it, and where a clip then changes.

Shapes: n clips, F video frames of H×W pixels, N tokens, D width, E refinement experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline

from prophy.branch.attach import Attachment
from prophy.branch.refinement import RefinementExpertBlock, TokenRouting
from prophy.evaluation.clips import ArrayFolder, digest_of, generated_frames
from prophy.evaluation.judges.segmenter import Segmenter, load_segmenter, segment
from prophy.evaluation.measures.laws import AskedClip, clip_errors, clip_verdicts
from prophy.evaluation.results.localisation import LocalisationResult
from prophy.generation.generate import Generation, generate
from prophy.generation.identity import branch_is_on, branch_switched
from prophy.generation.resume import resumable
from prophy.generation.settings import GenerationSettings
from prophy.phenomena import IDS, by_id
from prophy.routing.steering import Steering
from prophy.routing.trace import RoutingTrace
from prophy.worlds import Stage, WorldSet

PLACE, SEGMENTER = "place", "segmenter"  #: see :func:`area_finder`
AREAS = (PLACE, SEGMENTER)

Verdicts = dict[str, dict[str, bool]]  #: by phenomenon, then by law
Areas = dict[str, np.ndarray]  #: by phenomenon, bool (F, H, W)


# --- which expert is whose --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExpertNames:
    """The refinement expert of each phenomenon.

    Attributes:
        experts: by phenomenon id.
        by_name: expert p is that of phenomenon p, as :func:`prophy.branch.losses.routing_loss` teaches it; else the
            one that localisation matched to it, which others may share.
        further: experts of phenomena that are not looked at.
    """

    experts: Mapping[str, int]
    by_name: bool
    further: tuple[int, ...] = ()

    @property
    def every(self) -> frozenset[int]:
        """The experts of all phenomena."""
        return frozenset((*self.experts.values(), *self.further))

    def muting(self, *phenomena: str) -> Steering:
        """The experts of these phenomena muted; nothing for none."""
        return Steering(refinement={self.experts[name]: 0.0 for name in phenomena})

    def leaving(self, *phenomena: str) -> Steering:
        """The experts of all other phenomena muted."""
        kept = {self.experts[name] for name in phenomena}
        return Steering(refinement=dict.fromkeys(self.every - kept, 0.0))


def expert_names(pipeline: DiffusionPipeline, work: Path, phenomena: Sequence[str]) -> ExpertNames:
    """Which expert stands for which phenomenon.

    A branch with more experts than phenomena names them by their order. For one with fewer, ``localisation.json`` in
    the work folder says which expert found each phenomenon on another split, at the noise nearest one half.

    Raises:
        ValueError: the pipeline has no branch, or localisation matched no expert to a phenomenon.
        FileNotFoundError: too few experts, and localisation was not measured.
    """
    attachment_of(pipeline)
    if pipeline.branch.config.num_refinement_experts > len(IDS):
        experts = {name: by_id(name).index for name in phenomena}
        return ExpertNames(experts, True, tuple(set(range(len(IDS))) - set(experts.values())))
    levels = LocalisationResult.load(work).levels
    matched = min(levels, key=lambda level: abs(level.noise - 0.5)).experts
    if missing := [name for name in phenomena if name not in matched]:
        raise ValueError(f"localisation matched no expert to {missing[0]}: measure it again for these phenomena")
    if beyond := [e for e in matched.values() if e >= pipeline.branch.config.num_refinement_experts]:
        raise ValueError(
            f"localisation speaks of expert {beyond[0]}, which this branch does not have: measure it again"
        )
    experts = {name: matched[name] for name in phenomena}
    return ExpertNames(experts, False, tuple(set(matched.values()) - set(experts.values())))


def attachment_of(pipeline: DiffusionPipeline) -> Attachment:
    """The attachment of a pipeline's branch.

    Raises:
        ValueError: it has no branch, or it is off.
    """
    if not branch_is_on(pipeline):
        raise ValueError("this measures what a branch causes: give a model with a branch/ folder, or --branch")
    return pipeline.attachment


# --- clips with something done to the branch --------------------------------------------------------------------------


def steered_frames(
    pipeline: DiffusionPipeline, work: Path, settings: Sequence[GenerationSettings], batch: int, steering: Steering
) -> np.ndarray:
    """The clips with the branch steered, uint8 ``(n, F, H, W, 3)``; those made before are read."""
    return generated_frames(pipeline, work, [replace(one, steering=steering) for one in settings], batch)


def backbone_frames(
    pipeline: DiffusionPipeline, work: Path, settings: Sequence[GenerationSettings], batch: int
) -> np.ndarray:
    """The clips with the branch switched off; those made before are read."""
    with branch_switched(pipeline, on=False):
        return generated_frames(pipeline, work, settings, batch)


def turned_frames(
    pipeline: DiffusionPipeline, work: Path, settings: Sequence[GenerationSettings], batch: int, expert: int
) -> np.ndarray:
    """The clips under :func:`turned_change` of one expert; those made before are read."""

    def make(pipeline: DiffusionPipeline, settings: Sequence[GenerationSettings]) -> list[Generation]:
        with turned_change(pipeline.branch.refinement, expert):
            return generate(pipeline, settings)

    return generated_frames(pipeline, work, settings, batch, f"turned change of expert {expert}", make=make)


@contextmanager
def turned_change(block: RefinementExpertBlock, expert: int, seed: int = 0) -> Iterator[None]:
    """Change the tokens as much as muting an expert would, in a random direction, while the context lasts.

    What muting changes of a token's state behind the experts is turned by one random rotation of the D dimensions: the
    same tokens change, each by the same norm, and what is smooth in space and time stays so. Ours; a control.
    """
    scale_E = torch.ones(len(block.bias_ED))
    scale_E[expert] = 0
    generator = torch.Generator().manual_seed(seed)
    width = block.bias_ED.shape[1]
    q, r = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    turn_DD = (q * r.diagonal().sign()).float()

    def change(
        module: RefinementExpertBlock, args: tuple, output: tuple[torch.Tensor, TokenRouting]
    ) -> tuple[torch.Tensor, TokenRouting]:
        x_BND, steering_E, forced_N = (*args, None, None)[:3]
        scale = scale_E.to(x_BND.device)
        muted_BND, _ = module.forward(x_BND, scale if steering_E is None else scale * steering_E, forced_N)
        refined_BND, routing = output
        turned_BND = (muted_BND - refined_BND).float() @ turn_DD.to(x_BND.device)
        return refined_BND + turned_BND.to(refined_BND.dtype), routing

    handle = block.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


def expert_use(
    pipeline: DiffusionPipeline, work: Path, settings: Sequence[GenerationSettings], batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """The clips as they are, uint8 ``(n, F, H, W, 3)``, and each expert's share of their tokens, float32 ``(n, E)``.

    A share is the mean weight over tokens and denoising steps; those of a clip sum to one.
    """
    store = ArrayFolder[Generation](
        work, "routed-clips", pipeline, lambda made: {"frames": made.frames, "use": mean_use(made.trace)}
    )
    names = [digest_of(one) for one in settings]
    kept = resumable(pipeline, dict(zip(names, settings, strict=True)), store, batch=batch)
    return np.stack([kept[name]["frames"] for name in names]), np.stack([kept[name]["use"] for name in names])


def mean_use(trace: RoutingTrace | None) -> np.ndarray:
    """Each expert's mean weight over the tokens of all kept steps, float32 ``(E,)``.

    Raises:
        ValueError: no routing was recorded.
    """
    if trace is None:
        raise ValueError("the branch never ran: use a schedule that lets it")
    weights = trace.topk_weights.astype(np.float64).ravel()
    total = np.bincount(trace.topk_ids.ravel(), weights, minlength=trace.num_experts)
    return (total / weights.sum()).astype(np.float32)


# --- laws and pixels --------------------------------------------------------------------------------------------------


def verdicts(frames_nFHWC: np.ndarray, asked: Sequence[AskedClip], stage: Stage) -> list[Verdicts]:
    """Whether each law of every clip is obeyed, by phenomenon; a lost track breaks all of its laws."""
    pairs = zip(frames_nFHWC, asked, strict=True)
    return [clip_verdicts(clip_errors(frames, one.scenario, stage)) for frames, one in pairs]


def obeyed(verdict: Mapping[str, bool]) -> float:
    """Share of a phenomenon's laws that are obeyed."""
    return sum(verdict.values()) / len(verdict)


#: from two versions of clips, and what was asked of them, to where each phenomenon of each clip is
AreaFinder = Callable[[np.ndarray, np.ndarray, Sequence[AskedClip]], list[Areas]]


def area_finder(kind: str, work: Path, worlds: WorldSet) -> AreaFinder:
    """What says where in a generated clip a phenomenon is.

    ``place``: the part of the stage that the prompt gives it; half of it in a clip of two phenomena, and all of it in
    the centre. ``segmenter``: the tokens at which the segmenter of the work folder sees it, in either of the two
    versions of a clip that are compared.

    Raises:
        ValueError: an unknown kind, or a segmenter of other worlds.
        FileNotFoundError: the segmenter has not been trained.
    """
    if kind not in AREAS:
        raise ValueError(f"unknown areas {kind!r}: use {' or '.join(AREAS)}")
    if kind == PLACE:
        return lambda before, after, asked: [_places(one, worlds.stage) for one in asked]
    return partial(_seen, load_segmenter(work, worlds))


def _places(asked: AskedClip, stage: Stage) -> Areas:
    areas: Areas = {}
    for event in asked.scenario.events:
        area = areas.setdefault(event.phenomenon, np.zeros((stage.frames, stage.height, stage.width), bool))
        area[:, :, stage.columns(stage.region(event.place))] = True
    return areas


def _seen(model: Segmenter, before: np.ndarray, after: np.ndarray, asked: Sequence[AskedClip]) -> list[Areas]:
    either_nNP = np.maximum(segment(model, before), segment(model, after)) > 0.5
    height, width = before.shape[2:4]
    return [
        {name: model.grid.to_pixels(seen_NP[:, by_id(name).index], height, width) for name in _shown(one)}
        for seen_NP, one in zip(either_nNP, asked, strict=True)
    ]


def _shown(asked: AskedClip) -> Iterable[str]:
    return dict.fromkeys(event.phenomenon for event in asked.scenario.events)


def pixel_change(before_FHWC: np.ndarray, after_FHWC: np.ndarray, area_FHW: np.ndarray) -> tuple[float, float]:
    """Mean absolute difference inside and outside an area, levels of 255; NaN where there is no pixel."""
    change_FHW = np.abs(before_FHWC.astype(np.int16) - after_FHWC).mean(-1)
    return _mean(change_FHW[area_FHW]), _mean(change_FHW[~area_FHW])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def union(areas: Areas) -> np.ndarray:
    """Where any of the phenomena is, bool ``(F, H, W)``."""
    return np.logical_or.reduce(list(areas.values()))
