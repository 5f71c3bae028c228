"""Recognition on generated clips: of held-out prompts, how many become clips that show what was asked for.

    prophy evaluate recognition --model runs/tiny/model --work runs/tiny

Shapes: n prompts, P phenomena, F frames of H×W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from prophy.evaluation.judges.recogniser import load_recogniser, recognise, recogniser_error
from prophy.evaluation.measures.generated import generate_clips, resumed, settings_for
from prophy.evaluation.measures.metrics import Interval, bootstrap
from prophy.evaluation.prompts.held_out import HeldOutPrompt
from prophy.evaluation.results import FOLDER, write_result
from prophy.generation.generate import model_hash
from prophy.generation.pipelines import ProPhyWanPipeline
from prophy.phenomena import IDS, by_id

SINGLE_GATE, BOTH_GATE = 0.90, 0.70


@dataclass(frozen=True)
class PromptVerdict:
    """One prompt and what was recognised in its clip."""

    prompt: str
    seed: int
    wording: str
    asked: tuple[str, ...]
    found: tuple[str, ...]


@dataclass(frozen=True)
class RecognitionScore:
    """How often the prompted phenomena are recognised.

    Attributes:
        single: share of single-phenomenon prompts whose phenomenon is recognised.
        both: share of two-phenomena prompts of which both are recognised.
        exact: share of all prompts with exactly the prompted set.
        recall: by phenomenon id, over all prompts that ask for it.
        unasked: by phenomenon id, share of the other prompts in whose clips it is recognised all the same.
        by_wording: share of prompts of each kind of wording with everything asked for.
    """

    single: Interval
    both: Interval
    exact: Interval
    recall: dict[str, Interval]
    unasked: dict[str, float]
    by_wording: dict[str, Interval]


@dataclass(frozen=True)
class RecognitionResult:
    """The score, what made it, and every verdict.

    Attributes:
        classifier_exact: the classifier's own exact share on held-out real renders.
        branch: whether the branch took part.
    """

    score: RecognitionScore
    classifier_exact: float
    model_sha256: str
    branch: bool
    steps: int
    guidance: float
    verdicts: tuple[PromptVerdict, ...]


def evaluate_recognition(
    pipeline: ProPhyWanPipeline,
    work: Path,
    prompts: Sequence[HeldOutPrompt],
    batch: int = 8,
    steps: int | None = None,
    *,
    judge: Path | None = None,
    clips_of: str = "recognition",
) -> RecognitionResult:
    """Generate every prompt's clip, classify it, and write ``recognition.json`` (or ``recognition-no-branch.json``).

    Finished batches stay on disk; a killed run goes on where it was.

    Args:
        pipeline: with the branch as it shall be.
        work: folder of results.
        prompts: what to ask for.
        batch: prompts at a time.
        steps: denoising steps, for trying out.
        judge: folder that the classifier was trained in; default: ``work``.
        clips_of: the evaluation whose clips they are: another one that asked for the same prompts has made them.

    Raises:
        FileNotFoundError: the classifier has not been trained.
    """
    work = Path(work)
    judge = work if judge is None else Path(judge)
    model, classifier_exact = load_recogniser(judge), recogniser_error(judge)
    frames = generate_resumed(pipeline, work, prompts, batch, steps, clips_of)
    logits = recognise(model, frames)
    settings = settings_for(prompts[0].prompt, prompts[0].seed, steps)
    branch = pipeline.attachment is not None and pipeline.attachment.enabled
    verdicts = tuple(
        PromptVerdict(p.prompt, p.seed, p.wording, p.phenomena, tuple(IDS[i] for i in np.flatnonzero(row > 0)))
        for p, row in zip(prompts, logits.numpy(), strict=True)
    )
    result = RecognitionResult(
        score=score(logits, asked(prompts), [p.wording for p in prompts]),
        classifier_exact=classifier_exact,
        model_sha256=model_hash(pipeline),
        branch=branch,
        steps=settings.steps,
        guidance=settings.guidance,
        verdicts=verdicts,
    )
    write_result(work / FOLDER / f"recognition{'' if branch else '-no-branch'}.json", result)
    return result


def generate_resumed(
    pipeline: ProPhyWanPipeline,
    work: Path,
    prompts: Sequence[HeldOutPrompt],
    batch: int,
    steps: int | None,
    name: str = "recognition",
) -> np.ndarray:
    """The prompts' clips, uint8 ``(n, F, H, W, 3)``; batches already made by the same weights are read from disk.

    ``name`` is that of the evaluation whose clips they are, and begins their folder's.
    """
    settings = [settings_for(p.prompt, p.seed, steps) for p in prompts]

    def make(chosen: slice) -> dict[str, np.ndarray]:
        return {"frames": generate_clips(pipeline, settings[chosen]).frames}

    return resumed(pipeline, work, name, settings, batch, make)["frames"]


def asked(prompts: Sequence[HeldOutPrompt]) -> torch.Tensor:
    """Multi-hot phenomena the prompts ask for, float32 ``(n, P)``."""
    labels = torch.zeros(len(prompts), len(IDS))
    for row, prompt in enumerate(prompts):
        labels[row, [by_id(name).index for name in prompt.phenomena]] = 1
    return labels


def score(logits_nP: torch.Tensor, asked_nP: torch.Tensor, wordings: Sequence[str]) -> RecognitionScore:
    """Compare what was recognised with what was asked for.

    Args:
        logits_nP: the classifier's; above 0 is there.
        asked_nP: multi-hot.
        wordings: of each prompt, which kind of sentences it is made of.
    """
    found, wanted = (logits_nP > 0).numpy(), asked_nP.bool().numpy()
    complete = (found | ~wanted).all(1).astype(np.float64)
    count = wanted.sum(1)
    kinds = np.array(wordings)
    asked_for = [i for i in range(len(IDS)) if wanted[:, i].any()]
    return RecognitionScore(
        single=bootstrap(complete[count == 1]),
        both=bootstrap(complete[count == 2]),
        exact=bootstrap((found == wanted).all(1)),
        recall={IDS[i]: bootstrap(found[wanted[:, i], i]) for i in asked_for},
        unasked={IDS[i]: bootstrap(found[~wanted[:, i], i]).value for i in asked_for},
        by_wording={str(kind): bootstrap(complete[kinds == kind]) for kind in np.unique(kinds)},
    )
