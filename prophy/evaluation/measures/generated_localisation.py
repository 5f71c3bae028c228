"""Localisation while a video is being made: at every denoising step, does the routing find what the video will show?

    prophy evaluate generated-localisation --model runs/tiny/model --work runs/tiny

There is no simulator behind a generated clip: the truth is what the independent segmenter sees in the finished video.
Its own error on real renders stands beside every number. A phenomenon that it sees nowhere is counted, not scored.

Shapes: n clips, D denoising steps, N tokens, E refinement experts, P phenomena.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from prophy.data.latents import GRID
from prophy.evaluation.judges.segmenter import load_segmenter, segment, segmenter_error
from prophy.evaluation.measures.cross_attention import record_cross_attention, word_weights
from prophy.evaluation.measures.generated import generate_clips, resumed, settings_for
from prophy.evaluation.measures.localisation import (
    CENTRE,
    CROSS,
    MAP,
    ROUTER,
    SHUFFLED,
    UNIFORM,
    MapScore,
    Truth,
    centre_prior,
    match_experts,
    score_maps,
)
from prophy.evaluation.measures.metrics import Interval
from prophy.evaluation.prompts.held_out import HeldOutPrompt
from prophy.evaluation.results import FOLDER, write_result
from prophy.generation.generate import GenerationSettings, model_hash
from prophy.generation.pipelines import ProPhyWanPipeline
from prophy.memory.stages import rules_of
from prophy.phenomena import IDS, by_id

_SHUFFLES = 4


@dataclass(frozen=True)
class StepScores:
    """One denoising step, from 1: scores by map."""

    step: int
    timestep: float
    scores: dict[str, MapScore]


@dataclass(frozen=True)
class GeneratedLocalisationResult:
    """Every step.

    Attributes:
        baselines: what needs no step: the centre prior, and a uniform map.
        segmenter_ap: the segmenter's own token average precision on held-out real renders.
        without_tokens: phenomena asked for of which the segmenter sees no token in the finished clip.
        asked: phenomena asked for, over all clips.
    """

    steps: tuple[StepScores, ...]
    baselines: dict[str, MapScore]
    segmenter_ap: Interval
    without_tokens: int
    asked: int
    clips: int
    model_sha256: str


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
    pipeline: ProPhyWanPipeline,
    work: Path,
    prompts: Sequence[HeldOutPrompt],
    batch: int = 8,
    steps: int | None = None,
) -> GeneratedLocalisationResult:
    """Generate, segment, score; writes ``generated-localisation.json`` under ``work/evaluation``.

    Finished batches stay on disk; a killed run goes on where it was.

    Raises:
        ValueError: the pipeline has no branch, or fewer than two prompts.
        FileNotFoundError: the segmenter has not been trained.
    """
    if pipeline.attachment is None or not pipeline.attachment.enabled:
        raise ValueError("localisation needs a branch: give a model with a branch/ folder, or --branch")
    if len(prompts) < 2:
        raise ValueError("experts are matched on the other half of the clips: give two prompts at least")
    work = Path(work)
    segmenter, error = load_segmenter(work), segmenter_error(work)
    clips = record_resumed(pipeline, work, prompts, batch, steps)
    shown = np.zeros((len(prompts), len(IDS)), bool)
    for row, prompt in enumerate(prompts):
        shown[row, [by_id(name).index for name in prompt.phenomena]] = True
    truth = Truth(segment(segmenter, clips.frames), shown, GRID)
    result = GeneratedLocalisationResult(
        steps=tuple(_step(clips, truth, d) for d in range(clips.maps.shape[1])),
        baselines={
            CENTRE: score_maps(np.broadcast_to(centre_prior(GRID)[None, :, None], truth.cover_nNP.shape), truth),
            UNIFORM: score_maps(np.ones_like(truth.cover_nNP), truth),
        },
        segmenter_ap=error,
        without_tokens=int((shown & ~(truth.cover_nNP > 0.5).any(1)).sum()),
        asked=int(shown.sum()),
        clips=len(prompts),
        model_sha256=model_hash(pipeline),
    )
    write_result(work / FOLDER / "generated-localisation.json", result)
    return result


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


def record_resumed(
    pipeline: ProPhyWanPipeline, work: Path, prompts: Sequence[HeldOutPrompt], batch: int, steps: int | None
) -> RecordedClips:
    """Every prompt's clip with its recordings; batches already made by the same weights are read from disk."""
    settings = [settings_for(prompt.prompt, prompt.seed, steps) for prompt in prompts]

    def make(chosen: slice) -> dict[str, np.ndarray]:
        return vars(record(pipeline, settings[chosen], [prompt.phenomena for prompt in prompts[chosen]]))

    return RecordedClips(**resumed(pipeline, work, "generated-localisation", settings, batch, make))


@torch.no_grad()
def record(
    pipeline: ProPhyWanPipeline, settings: Sequence[GenerationSettings], asked: Sequence[Sequence[str]]
) -> RecordedClips:
    """Generate a batch and record the routing and the backbone's cross-attention of its conditional passes."""
    length, texts = rules_of(pipeline).text_tokens, [one.prompt for one in settings]
    text_BLD, _ = pipeline.encode_prompt(prompt=texts, do_classifier_free_guidance=False, max_sequence_length=length)
    ids_BL = pipeline.tokenizer(
        texts, padding="max_length", max_length=text_BLD.shape[1], truncation=True, return_tensors="pt"
    ).input_ids
    weights_BPL = word_weights(pipeline.tokenizer, ids_BL, asked)
    with record_cross_attention(pipeline.transformer, text_BLD, weights_BPL) as attention:
        made = generate_clips(pipeline, settings)
    if len(attention.maps) != settings[0].steps:
        raise RuntimeError(
            f"{len(attention.maps)} conditional passes in {settings[0].steps} steps: the pipeline changed how it calls "
            "its transformer"
        )
    traces = made.traces
    experts = np.zeros((len(traces), *traces[0].topk_ids.shape[:2], traces[0].num_experts), np.float16)
    for row, trace in enumerate(traces):
        np.put_along_axis(experts[row], trace.topk_ids.astype(np.int64), trace.topk_weights, axis=-1)
    kept = [number - 1 for number in traces[0].step_numbers]
    return RecordedClips(
        frames=made.frames,
        maps=np.stack([trace.phenomenon_maps for trace in traces]),
        experts=experts,
        attention=torch.stack(attention.maps, 1)[:, kept].half().numpy(),
        timesteps=np.stack([trace.timesteps for trace in traces]),
    )
