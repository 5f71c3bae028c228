"""Localisation while a video is being made: at every denoising step, does the routing find what the video will show?

    prophy evaluate generated-localisation --model runs/tiny/model --work runs/tiny

There is no simulator behind a generated clip: the truth is what the independent segmenter sees in the finished video.
Its own error on real renders stands beside every number. A phenomenon that it sees nowhere is counted, not scored.

Shapes: n clips, D denoising steps, N tokens, E refinement experts, P phenomena.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.data.encode import encode_captions
from prophy.evaluation.clips import ArrayFolder, digest_of, settings_of
from prophy.evaluation.judges.segmenter import load_segmenter, segment, segmenter_error
from prophy.evaluation.measures.cross_attention import record_cross_attention, word_weights
from prophy.evaluation.measures.localisation import Truth, centre_prior, match_experts, score_maps
from prophy.evaluation.prompts.held_out import HeldOutPrompt
from prophy.evaluation.results.judges import SegmenterResult
from prophy.evaluation.results.localisation import (
    CENTRE,
    CROSS,
    MAP,
    ROUTER,
    SHUFFLED,
    UNIFORM,
    GeneratedLocalisationResult,
    StepScores,
)
from prophy.generation.generate import generate
from prophy.generation.identity import branch_is_on, model_hash
from prophy.generation.resume import resumable
from prophy.generation.settings import GenerationSettings
from prophy.phenomena import IDS, by_id
from prophy.worlds import Stage

_SHUFFLES = 4


@dataclass(frozen=True)
class RecordedClips:
    """A batch of generated clips with what was recorded while they were made.

    Attributes:
        frames: uint8 ``(n, F, H, W, 3)``.
        maps: P', float16 ``(n, D, N, P)``.
        experts: the experts' weights, 0 where not chosen, float16 ``(n, D, N, E)``.
        attention: of the backbone to the phenomena's words, float16 ``(n, D, N, P)``.
        timesteps: float32 ``(n, D)``, the same for every clip.
    """

    frames: np.ndarray
    maps: np.ndarray
    experts: np.ndarray
    attention: np.ndarray
    timesteps: np.ndarray


def evaluate_generated_localisation(
    pipeline: ProPhyPipeline,
    work: Path,
    prompts: Sequence[HeldOutPrompt],
    batch: int = 8,
    steps: int | None = None,
) -> GeneratedLocalisationResult:
    """Generate, segment, score; writes ``generated-localisation.json`` under ``work/evaluation``.

    Clips stay on disk; a killed run is resumed.

    Raises:
        ValueError: the pipeline has no branch, or fewer than two prompts.
        FileNotFoundError: the segmenter has not been trained.
    """
    if not branch_is_on(pipeline):
        raise ValueError("localisation needs a branch: give a model with a branch/ folder, or --branch")
    if len(prompts) < 2:
        raise ValueError("experts are matched on the other half of the clips: give two prompts at least")
    work = Path(work)
    segmenter, error = load_segmenter(work), segmenter_error(work)
    clips = recorded_clips(pipeline, work, prompts, batch, steps, SegmenterResult.load(work).recipe.stage)
    shown = np.zeros((len(prompts), len(IDS)), bool)
    for row, prompt in enumerate(prompts):
        shown[row, [by_id(name).index for name in prompt.phenomena]] = True
    truth = Truth(segment(segmenter, clips.frames), shown, segmenter.grid)
    return GeneratedLocalisationResult(
        steps=tuple(_step(clips, truth, d) for d in range(clips.maps.shape[1])),
        baselines={
            CENTRE: score_maps(np.broadcast_to(centre_prior(truth.grid)[None, :, None], truth.cover_nNP.shape), truth),
            UNIFORM: score_maps(np.ones_like(truth.cover_nNP), truth),
        },
        segmenter_ap=error,
        without_tokens=int((shown & ~(truth.cover_nNP > 0.5).any(1)).sum()),
        asked=int(shown.sum()),
        clips=len(prompts),
        model_sha256=model_hash(pipeline),
    ).save(work)


def _step(clips: RecordedClips, truth: Truth, d: int) -> StepScores:
    maps, experts = clips.maps[:, d].astype(np.float32), clips.experts[:, d].astype(np.float32)
    scores = {
        MAP: score_maps(maps, truth),
        ROUTER: score_maps(matched_crosswise(experts, truth), truth),
        CROSS: score_maps(clips.attention[:, d].astype(np.float32), truth),
        SHUFFLED: score_maps(maps, truth, shuffles=_SHUFFLES),
    }
    return StepScores(d + 1, float(clips.timesteps[0, d]), scores)


def matched_crosswise(experts_nNE: np.ndarray, truth: Truth) -> np.ndarray:
    """Each phenomenon's expert, chosen on the even clips for the odd ones and the other way round, ``(n, N, P)``."""
    maps = np.zeros(truth.cover_nNP.shape, np.float32)
    for first in range(2):
        learn, use = slice(first, None, 2), slice(1 - first, None, 2)
        half = Truth(truth.cover_nNP[learn], truth.shown_nP[learn], truth.grid)
        maps[use] = experts_nNE[use][:, :, match_experts(experts_nNE[learn], half)]
    return maps


def recorded_clips(
    pipeline: ProPhyPipeline,
    work: Path,
    prompts: Sequence[HeldOutPrompt],
    batch: int,
    steps: int | None,
    stage: Stage = Stage(),
) -> RecordedClips:
    """Every prompt's clip with its recordings; those that the same model made before are read."""
    settings = settings_of(prompts, steps, stage)
    names = [digest_of(one, *prompt.phenomena) for one, prompt in zip(settings, prompts, strict=True)]
    asked = {one: prompt.phenomena for one, prompt in zip(settings, prompts, strict=True)}
    kept = resumable(
        pipeline,
        dict(zip(names, settings, strict=True)),
        ArrayFolder[dict[str, np.ndarray]](work, "recordings", pipeline, lambda arrays: arrays),
        batch=batch,
        make=lambda pipeline, settings: record(pipeline, settings, [asked[one] for one in settings]),
    )
    arrays = {f.name: np.stack([kept[name][f.name] for name in names]) for f in fields(RecordedClips)}
    return RecordedClips(**arrays)


@torch.no_grad()
def record(
    pipeline: ProPhyPipeline, settings: Sequence[GenerationSettings], asked: Sequence[Sequence[str]]
) -> list[dict[str, np.ndarray]]:
    """Generate a batch and record the routing and the backbone's cross-attention of its conditional passes.

    Returns:
        Of each clip, its row of :class:`RecordedClips`.
    """
    texts = [one.prompt for one in settings]
    text_BLD = encode_captions(pipeline, texts)
    ids_BL = pipeline.tokenizer(
        texts, padding="max_length", max_length=text_BLD.shape[1], truncation=True, return_tensors="pt"
    ).input_ids
    weights_BPL = word_weights(pipeline.tokenizer, ids_BL, asked)
    with record_cross_attention(pipeline.transformer, text_BLD, weights_BPL) as attention:
        generations = generate(pipeline, settings)
    if len(attention.maps) != settings[0].steps:
        raise RuntimeError(
            f"{len(attention.maps)} conditional passes in {settings[0].steps} steps: the pipeline changed how it calls "
            "its transformer"
        )
    attention_BDNP = torch.stack(attention.maps, 1).half().numpy()
    recorded = []
    for made, attention_DNP in zip(generations, attention_BDNP, strict=True):
        trace = made.routing
        experts = np.zeros((*trace.topk_ids.shape[:2], trace.num_experts), np.float16)
        np.put_along_axis(experts, trace.topk_ids.astype(np.int64), trace.topk_weights, axis=-1)
        recorded.append(
            {
                "frames": made.frames,
                "maps": trace.phenomenon_maps,
                "experts": experts,
                "attention": attention_DNP[[number - 1 for number in trace.step_numbers]],
                "timesteps": trace.timesteps,
            }
        )
    return recorded
