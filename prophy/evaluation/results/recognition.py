"""Recognition: of held-out prompts, how many become clips that show what was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Interval, Measured, Result
from prophy.evaluation.results.interval import Count, PhenomenonId


@dataclass(frozen=True)
class PromptVerdict:
    """One prompt and what was recognised in its clip."""

    prompt: str
    seed: int
    wording: str
    asked: tuple[PhenomenonId, ...]
    found: tuple[PhenomenonId, ...]


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
    recall: dict[PhenomenonId, Interval]
    unasked: dict[PhenomenonId, Measured]
    by_wording: dict[str, Interval]


@dataclass(frozen=True)
class RecognitionResult(Result, kind="recognition", command="prophy evaluate recognition"):
    """The score, what made it, and every verdict.

    Attributes:
        classifier_exact: the classifier's own exact share on held-out real renders.
        branch: whether the branch took part.
    """

    score: RecognitionScore
    classifier_exact: float
    model_sha256: str
    branch: bool
    steps: Count
    guidance: float
    verdicts: tuple[PromptVerdict, ...]

    @property
    def stem(self) -> str:
        return self.kind if self.branch else f"{self.kind}-no-branch"

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}
