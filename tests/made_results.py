"""Small results of the evaluations' own code, for the pages that show them."""

from __future__ import annotations

import numpy as np
import torch

from prophy.evaluation.judges.trackers import LAWS
from prophy.evaluation.measures.annotation import OTHER_CLIP, TARGETS, AnnotationResult
from prophy.evaluation.measures.figures import INVERTED, RANDOM, SHUFFLED, InversionResult, correlate
from prophy.evaluation.measures.flow_loss import BACKBONE, BRANCH, ClipLosses, FlowResult, compare
from prophy.evaluation.measures.laws import PROPHY, REAL, ClipErrors, LawsResult, score_columns
from prophy.evaluation.measures.localisation import (
    MAP,
    UNIFORM,
    ExpertUse,
    LocalisationLevel,
    LocalisationResult,
    Truth,
    score_maps,
)
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.measures.recognition import PromptVerdict, RecognitionResult, score
from prophy.grid import TokenGrid
from prophy.phenomena import IDS


def laws_result() -> LawsResult:
    def clips(error: float) -> list[ClipErrors]:
        laws = LAWS["deformation", "press"]
        return [ClipErrors({f"deformation, press: {law.name}": error for law in laws}, {}) for _ in range(3)]

    columns = {REAL: clips(0.01), "backbone": clips(0.5), PROPHY: clips(0.25)}
    return LawsResult({"test": score_columns(columns)}, 3, None, {"backbone": "b" * 64, PROPHY: "c" * 64}, {})


def recognition_result() -> RecognitionResult:
    logits = torch.full((4, len(IDS)), -1.0)
    asked = torch.zeros(4, len(IDS))
    for row in range(4):
        asked[row, row] = 1
        logits[row, row if row else 9] = 1.0
    verdict = PromptVerdict("<script>alert(1)</script>", 1, "usual", (IDS[0],), (IDS[9],))
    return RecognitionResult(score(logits, asked, ["usual"] * 4), 0.999, "a" * 64, True, 20, 4.0, (verdict,) * 4)


def localisation_result() -> LocalisationResult:
    cover = np.zeros((2, 12, len(IDS)), np.float32)
    shown = np.zeros((2, len(IDS)), bool)
    cover[0, :4, 0] = cover[1, 4:6, 1] = 1
    shown[0, 0] = shown[1, 1] = True
    truth = Truth(cover, shown, TokenGrid(1, 3, 4))
    scores = {MAP: score_maps(cover, truth), UNIFORM: score_maps(np.ones_like(cover), truth)}
    use = ExpertUse((0.5, 0.5), (0.4, 0.6))
    levels = tuple(LocalisationLevel(noise, scores, bootstrap(np.ones(2)), {}, use) for noise in (0.2, 0.5))
    return LocalisationResult(levels, use, {IDS[0]: 0.9}, {IDS[0]: 0.5}, 2, "wordings", "test", 0, "a" * 64)


def flow_result() -> FlowResult:
    base = np.array([1.0, 2.0, 3.0])
    losses = {BACKBONE: ClipLosses(base, base), BRANCH: ClipLosses(base - 0.1, base - 0.1)}
    return FlowResult((compare(0.5, losses),), 3, "wordings", "a" * 64, None)


def correlation_result():
    rng = np.random.default_rng(0)
    shown = np.zeros((12, len(IDS)), bool)
    shown[np.arange(12), np.arange(12) % 4] = True
    return correlate(rng.normal(size=(12, 6)).astype(np.float32), shown, "a" * 64, resamples=20)


def inversion_result() -> InversionResult:
    """Inversion changes the clip no more than shuffled experts do: its interval holds 0."""
    pixels = {INVERTED: [0.1, 0.3, 0.2], RANDOM: [0.01, 0.02, 0.03], SHUFFLED: [0.2, 0.2, 0.2]}
    table = {name: np.array(values) for name, values in pixels.items()}
    return InversionResult(
        pixels={name: bootstrap(values) for name, values in table.items()},
        routing={name: bootstrap(values) for name, values in table.items()},
        inverted_minus={name: bootstrap(table[INVERTED] - table[name]) for name in (RANDOM, SHUFFLED)},
        prompts=("a", "b", "c"),
        pictures=(),
        model_sha256="a" * 64,
    )


def annotation_result() -> AnnotationResult:
    scores = localisation_result().levels[0].scores
    found = {TARGETS: scores[MAP], OTHER_CLIP: scores[UNIFORM], UNIFORM: scores[UNIFORM]}
    said = ({"Describe the video briefly.": "<script>alert(1)</script>"},)
    return AnnotationResult(found, {IDS[0]: scores[MAP]}, said, 1.0, (1, 2), "small-vlm@0", 2, "test")
