"""The flow loss with and without the branch, on clips whose scenes and captions are both held out.

    prophy evaluate flow --model runs/tiny/model --control runs/tiny/control --work runs/tiny

Three models see the same noisy latents: the backbone, the backbone with its branch, and, if given, a control: the
backbone trained longer without a branch. Everything is a paired difference, clip by clip.

Shapes: n clips, C latent channels, T latent frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import ModelMixin
from tqdm import tqdm

from prophy.backbones.pipeline import ProPhyPipeline, rules_of
from prophy.data.latents import LatentCache, open_cache
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.results import Interval
from prophy.evaluation.results.flow_loss import (
    BACKBONE,
    BRANCH,
    CONTROL,
    Comparison,
    FlowLevel,
    FlowResult,
    Where,
)
from prophy.generation.identity import branch_is_on, branch_switched, model_hash
from prophy.training.batches import NOISE_LEVELS, Batch, fixed_batch
from prophy.training.objectives import FlowMatching
from prophy.training.world_examples import WorldExamples
from prophy.worlds import WorldSet

HELD_OUT = "wordings"  #: the split whose scenes and captions training never sees
CLIPS = 256

Predict = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True)
class ClipLosses:
    """Flow losses of one model at one noise level, clip by clip.

    Attributes:
        everywhere: mean squared error over the whole latent, float64 ``(n,)``.
        acting: over the tokens that a phenomenon covers by more than half, float64 ``(n,)``; NaN where there is none.
    """

    everywhere: np.ndarray
    acting: np.ndarray


def evaluate_flow(
    pipeline: ProPhyPipeline,
    work: Path,
    control: ModelMixin | None = None,
    clips: int = CLIPS,
    batch: int = 16,
    control_name: str | None = None,
    worlds: WorldSet = WorldSet(),
) -> FlowResult:
    """Measure and compare; writes ``flow.json`` under ``work/evaluation``.

    Raises:
        ValueError: neither a branch nor a control to compare the backbone with.
    """
    if not branch_is_on(pipeline) and control is None:
        raise ValueError("nothing to compare: give a model with a branch, a --control, or both")
    cache = held_out_cache(pipeline, work, clips, worlds)
    examples = WorldExamples(cache, pipeline.text_encoder)
    levels = flow_levels(predictors(pipeline, control), examples, NOISE_LEVELS, batch)
    return FlowResult(
        levels=levels,
        clips=len(cache),
        split=HELD_OUT,
        model_sha256=model_hash(pipeline),
        control=control_name,
        phenomena=worlds.phenomena,
        grammar=worlds.grammar,
        size=worlds.stage.size,
        fps=worlds.stage.fps,
    ).save(work)


def held_out_cache(pipeline: ProPhyPipeline, work: Path, clips: int, worlds: WorldSet = WorldSet()) -> LatentCache:
    """Encoded clips of the worlds with scenes and captions that training never sees; made on first use.

    Raises:
        ValueError: the work folder's are of other worlds, or of another autoencoder.
    """
    folder, held_out = Path(work) / f"latents-{HELD_OUT}", replace(worlds, split=HELD_OUT)
    patch = rules_of(pipeline).patch
    return open_cache(folder, pipeline.vae.eval(), pipeline.tokenizer, clips, held_out, patch)


def predictors(pipeline: ProPhyPipeline, control: ModelMixin | None) -> dict[str, Predict]:
    """The backbone, the backbone with its branch and the control, as far as they are there."""
    models = {BACKBONE: predictor(pipeline, pipeline.transformer, branch=False)}
    if branch_is_on(pipeline):
        models[BRANCH] = predictor(pipeline, pipeline.transformer, branch=True)
    if control is not None:
        models[CONTROL] = predictor(pipeline, control.eval(), branch=False)
    return models


def predictor(pipeline: ProPhyPipeline, transformer: ModelMixin, *, branch: bool) -> Predict:
    """A model as a function from a batch to its velocity, float32 ``(B, C, T, H, W)``.

    Args:
        pipeline: whose text encoder reads the captions, and whose branch may take part.
        transformer: the pipeline's own or another one.
        branch: whether the branch takes part, if there is one.
    """

    @torch.no_grad()
    def run(batch: Batch) -> torch.Tensor:
        batch = batch.to(transformer.device)
        with branch_switched(pipeline, branch):
            inputs = batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD
            return transformer(*inputs, return_dict=False)[0].float().cpu()

    return run


def flow_levels(
    models: Mapping[str, Predict], examples: WorldExamples, noises: Sequence[float], batch: int
) -> tuple[FlowLevel, ...]:
    """Losses of every model at every noise level; ``backbone`` is what the others are compared with."""
    levels = []
    for noise in noises:
        losses = {name: clip_losses(predict, examples, noise, batch, name) for name, predict in models.items()}
        levels.append(compare(noise, losses))
    return tuple(levels)


def clip_losses(predict: Predict, examples: WorldExamples, noise: float, batch: int, name: str = "flow") -> ClipLosses:
    """Losses of every clip at one noise level; its noise is always the same."""
    everywhere, acting = [], []
    for start in tqdm(range(0, len(examples), batch), f"{name} at {noise}", mininterval=5, unit="batch"):
        rows = range(start, min(start + batch, len(examples)))
        fixed = fixed_batch(examples, rows, noise, FlowMatching())
        error_BN = (predict(fixed) - fixed.target_BCTHW).square().mean(1).flatten(1).double().numpy()
        covered_BN = (fixed.targets_BNP.amax(-1) > 0.5).numpy()
        everywhere.append(error_BN.mean(1))
        count = covered_BN.sum(1)
        acting.append(np.where(count > 0, (error_BN * covered_BN).sum(1) / np.maximum(count, 1), np.nan))
    return ClipLosses(np.concatenate(everywhere), np.concatenate(acting))


def compare(noise: float, losses: dict[str, ClipLosses]) -> FlowLevel:
    """Means and paired differences to the backbone, with bootstrap intervals."""

    def comparisons(which: Where) -> dict[str, Comparison]:
        base = getattr(losses[BACKBONE], which)
        return {
            name: Comparison(
                bootstrap(getattr(part, which)),
                None if name == BACKBONE else bootstrap(getattr(part, which) - base),
            )
            for name, part in losses.items()
        }

    to_control: dict[Where, Interval] = {}
    if BRANCH in losses and CONTROL in losses:
        for which in ("everywhere", "acting"):
            to_control[which] = bootstrap(getattr(losses[BRANCH], which) - getattr(losses[CONTROL], which))
    return FlowLevel(noise, comparisons("everywhere"), comparisons("acting"), to_control)
