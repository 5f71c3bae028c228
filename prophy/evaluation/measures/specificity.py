"""Spatial specificity: at one fixed noisy latent, where does muting an expert change the predicted clean latent?

    prophy evaluate specificity --model runs/second/model --work runs/second

Nothing is generated, so nothing can spread from step to step: what changes is what the expert does in this pass. The
share of the squared change inside the phenomenon's mask, over the mask's share of the latent, is 1 for a change that
is everywhere alike. The masks are the worlds' own.

Shapes: B batch, n clips, C latent channels, T latent frames, H height, W width, E refinement experts, P phenomena.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.data.examples import on_latents
from prophy.evaluation.measures.causes import ExpertNames, attachment_of, expert_names, turned_change
from prophy.evaluation.measures.flow_loss import HELD_OUT, Predict, held_out_cache, predictor
from prophy.evaluation.measures.metrics import bootstrap, energy_over_area
from prophy.evaluation.results.causes import OTHER, OWN, RANDOM, SpecificityLevel, SpecificityResult
from prophy.generation.identity import model_hash
from prophy.phenomena import IDS
from prophy.routing.trace import Routing
from prophy.training.batches import NOISE_LEVELS, Batch, fixed_batch
from prophy.training.objectives import FlowMatching
from prophy.training.world_examples import WorldExamples
from prophy.worlds import WorldSet

CLIPS = 64


def evaluate_specificity(
    pipeline: ProPhyPipeline,
    work: Path,
    clips: int = CLIPS,
    batch: int = 16,
    noises: Sequence[float] = NOISE_LEVELS,
    worlds: WorldSet = WorldSet(),
) -> SpecificityResult:
    """Mute every shown phenomenon's expert in turn; writes ``specificity.json`` under ``work/evaluation``.

    Args:
        pipeline: with a branch.
        work: folder of caches and results.
        clips: held-out clips.
        batch: clips at a time.
        noises: levels to measure at.
        worlds: that the held-out clips are of, and whose phenomena's experts are muted; any split.

    Raises:
        ValueError: no branch, or no expert for a phenomenon.
        FileNotFoundError: fewer experts than phenomena, and localisation was not measured.
    """
    names = expert_names(pipeline, work, worlds.phenomena)
    cache = held_out_cache(pipeline, work, clips, worlds)
    examples = WorldExamples(cache, pipeline.text_encoder)
    levels, largest = [], None
    for noise in noises:
        found = _Found(len(examples))
        for rows in tqdm(_chunks(len(examples), batch), f"muted at {noise}", mininterval=5, unit="batch"):
            _measure(pipeline, examples, rows, noise, names, found)
        levels.append(
            SpecificityLevel(
                noise,
                energy={change: bootstrap(table) for change, table in found.energy.items()},
                size={change: bootstrap(table) for change, table in found.size.items()},
                by_phenomenon={name: bootstrap(found.energy[OWN][:, IDS.index(name)]) for name in names.experts},
            )
        )
        largest = bootstrap(found.largest)
    if largest is None:
        raise ValueError("no noise level to measure at: give one at least")
    return SpecificityResult(
        levels=tuple(levels),
        largest=largest,
        clips=len(cache),
        split=HELD_OUT,
        by_name=names.by_name,
        model_sha256=model_hash(pipeline),
        phenomena=worlds.phenomena,
        grammar=worlds.grammar,
        size=worlds.stage.size,
        fps=worlds.stage.fps,
    ).save(work)


class _Found:
    """What was measured, float64 ``(n, P)``; NaN where a clip does not show a phenomenon."""

    def __init__(self, clips: int) -> None:
        self.energy = {change: np.full((clips, len(IDS)), np.nan) for change in (OWN, RANDOM, OTHER)}
        self.size = {change: np.full((clips, len(IDS)), np.nan) for change in (OWN, RANDOM, OTHER)}
        self.largest = np.full((clips, len(IDS)), np.nan)


@dataclass(frozen=True)
class _Clip:
    """One clip's predictions and masks, float32 and bool ``(T, H, W)``."""

    row: int
    on_CTHW: torch.Tensor
    off_CTHW: torch.Tensor
    mask_THW: np.ndarray


def _measure(
    pipeline: ProPhyPipeline,
    examples: WorldExamples,
    rows: Sequence[int],
    noise: float,
    names: ExpertNames,
    found: _Found,
) -> None:
    """The velocity is what is compared: the predicted clean latent is the noisy one minus the noise level times it."""
    fixed = fixed_batch(examples, rows, noise, FlowMatching())
    run = predictor(pipeline, pipeline.transformer, branch=True)
    observed: list[Routing] = []
    with attachment_of(pipeline).observe(lambda _, routing: observed.append(routing)):
        on_BCTHW = run(fixed)
    off_BCTHW = predictor(pipeline, pipeline.transformer, branch=False)(fixed)
    use_BE = _use(observed[0])
    for name, expert in names.experts.items():
        p = IDS.index(name)
        shares_BTHW = on_latents(fixed.targets_BNP[:, :, p], on_BCTHW.shape[2:])
        masks_BTHW = (shares_BTHW > 0.5).numpy()
        shown = [b for b in range(len(rows)) if fixed.labels_BP[b, p] > 0 and masks_BTHW[b].any()]
        if not shown:
            continue
        clips = [_Clip(rows[b], on_BCTHW[b], off_BCTHW[b], masks_BTHW[b]) for b in shown]
        few = fixed_batch(examples, [clip.row for clip in clips], noise, FlowMatching())  # with the same noise
        for clip in clips:
            found.largest[clip.row, p] = 1 / clip.mask_THW.mean()
        _compare(clips, _muted(pipeline, run, few, expert), p, OWN, found)
        with turned_change(pipeline.branch.refinement, expert):
            _compare(clips, run(few), p, RANDOM, found)
        for other, theirs in _by_other_expert(clips, use_BE[shown], expert).items():
            some = fixed_batch(examples, [clip.row for clip in theirs], noise, FlowMatching())
            _compare(theirs, _muted(pipeline, run, some, other), p, OTHER, found)


def _compare(clips: Sequence[_Clip], changed_BCTHW: torch.Tensor, p: int, change: str, found: _Found) -> None:
    for clip, changed_CTHW in zip(clips, changed_BCTHW, strict=True):
        energy_THW = (changed_CTHW - clip.on_CTHW).square().mean(0).numpy()
        whole = float((clip.off_CTHW - clip.on_CTHW).square().mean())
        if energy_THW.any():  # what changes nothing has no place
            found.energy[change][clip.row, p] = energy_over_area(energy_THW, clip.mask_THW)
        found.size[change][clip.row, p] = np.sqrt(energy_THW.mean() / whole) if whole else np.nan


def _muted(pipeline: ProPhyPipeline, run: Predict, fixed: Batch, expert: int) -> torch.Tensor:
    scale_E = torch.ones(pipeline.branch.config.num_refinement_experts)
    scale_E[expert] = 0
    with attachment_of(pipeline).steer(refinement_scale=scale_E):
        return run(fixed)


def _by_other_expert(clips: Sequence[_Clip], use_BE: torch.Tensor, expert: int) -> dict[int, list[_Clip]]:
    """The clips by their most used expert but one."""
    use_BE = use_BE.clone()
    use_BE[:, expert] = 0
    found: dict[int, list[_Clip]] = {}
    for clip, use_E in zip(clips, use_BE, strict=True):
        if use_E.any():
            found.setdefault(int(use_E.argmax()), []).append(clip)
    return found


def _use(routing: Routing) -> torch.Tensor:
    """Each expert's weight over the tokens of every clip, float32 ``(B, E)``."""
    ids, weights = routing.topk_ids_BNK.flatten(1), routing.topk_weights_BNK.float().flatten(1)
    return torch.zeros(len(ids), routing.probs_BNE.shape[2]).scatter_add_(1, ids.cpu(), weights.cpu())


def _chunks(count: int, size: int) -> list[list[int]]:
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]
