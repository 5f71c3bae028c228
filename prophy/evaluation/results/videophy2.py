"""VideoPhy2: one run's scores with their protocol, and the paired differences of two runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from prophy.evaluation.results import Interval, Result
from prophy.evaluation.results.interval import Count
from prophy.evaluation.results.protocol import Protocol


def _legal(score: int) -> int:
    if score not in range(1, 6):
        raise ValueError(f"the score {score} is not 1 to 5")
    return score


Score = Annotated[int, AfterValidator(_legal)] | None  #: None: unscored


@dataclass(frozen=True)
class Subset:
    """Shares of one set of prompts; the intervals' ``n`` is the number of videos scored.

    Attributes:
        pc: share of videos whose physical commonsense scores at least 4.
        sa: share of videos whose semantic adherence scores at least 4.
        joint: share of videos with both.
        unscored_pc: videos without a legal score of physical commonsense.
        unscored_sa: videos without a legal score of semantic adherence.
        prompts: how many there are.
    """

    pc: Interval
    sa: Interval
    joint: Interval
    unscored_pc: Count
    unscored_sa: Count
    prompts: Count


@dataclass(frozen=True)
class VideoPhy2Result(Result, kind="videophy2", command="prophy evaluate videophy2 score …"):
    """One run's scores, and what they depend on.

    Attributes:
        everything: over all prompts.
        hard: over the HARD subset.
        scores: by the video's stem, (SA, PC); None is unscored.
        outputs_sha256: of the judge's two files, SA then PC.
    """

    everything: Subset
    hard: Subset
    judge: str
    protocol: Protocol
    outputs_sha256: tuple[str, str]
    scores: dict[str, tuple[Score, Score]]

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.protocol.model_sha256}


@dataclass(frozen=True)
class Differences:
    """Paired differences of two runs, the second minus the first, over videos scored in both."""

    pc: Interval
    sa: Interval
    joint: Interval


@dataclass(frozen=True)
class VideoPhy2Comparison(Result, kind="videophy2-comparison", command="prophy evaluate videophy2 compare …"):
    """Two runs of one protocol, the second minus the first.

    Attributes:
        everything: over all prompts.
        hard: over the HARD subset.
        model_sha256: of the first and of the second.
        branch: whether each had one.
    """

    everything: Differences
    hard: Differences
    model_sha256: tuple[str, str]
    branch: tuple[bool, bool]

    @property
    def weights(self) -> dict[str, str]:
        first, second = self.model_sha256
        return {"first": first, "second": second}
