"""Recognition on generated clips: of held-out prompts, how many become clips that show what was asked for.

    prophy evaluate recognition --model runs/tiny/model --work runs/tiny

Shapes: n prompts, P phenomena, F frames of H×W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.evaluation.clips import generated_frames, settings_of
from prophy.evaluation.judges.recogniser import load_recogniser, recognise, recogniser_error
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.prompts.held_out import HeldOutPrompt
from prophy.evaluation.results.recognition import PromptVerdict, RecognitionResult, RecognitionScore
from prophy.generation.identity import branch_is_on, model_hash
from prophy.phenomena import IDS, by_id

SINGLE_GATE, BOTH_GATE = 0.90, 0.70


def evaluate_recognition(
    pipeline: ProPhyPipeline,
    work: Path,
    prompts: Sequence[HeldOutPrompt],
    batch: int = 8,
    steps: int | None = None,
    *,
    judge: Path | None = None,
) -> RecognitionResult:
    """Generate every prompt's clip, classify it, and write ``recognition.json`` (or ``recognition-no-branch.json``).

    Clips stay on disk; a killed run is resumed.

    Args:
        pipeline: with the branch as it shall be.
        work: folder of results.
        prompts: what to ask for.
        batch: prompts at a time.
        steps: denoising steps, for trying out.
        judge: folder that the classifier was trained in; default: ``work``.

    Raises:
        FileNotFoundError: the classifier has not been trained.
    """
    work = Path(work)
    judge = work if judge is None else Path(judge)
    model, classifier_exact = load_recogniser(judge), recogniser_error(judge)
    settings = settings_of(prompts, steps, model.stage)
    logits = recognise(model, generated_frames(pipeline, work, settings, batch))
    branch = branch_is_on(pipeline)
    verdicts = tuple(
        PromptVerdict(p.prompt, p.seed, p.wording, p.phenomena, tuple(IDS[i] for i in np.flatnonzero(row > 0)))
        for p, row in zip(prompts, logits.numpy(), strict=True)
    )
    return RecognitionResult(
        score=score(logits, asked(prompts), [p.wording for p in prompts]),
        classifier_exact=classifier_exact,
        model_sha256=model_hash(pipeline),
        branch=branch,
        steps=settings[0].steps,
        guidance=settings[0].guidance,
        verdicts=verdicts,
    ).save(work)


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
