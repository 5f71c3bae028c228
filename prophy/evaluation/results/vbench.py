"""VBench's quality score."""

from __future__ import annotations

from dataclasses import dataclass, field

from prophy.evaluation.results import Result
from prophy.evaluation.results.interval import Count
from prophy.evaluation.results.result import require_alike


@dataclass(frozen=True)
class VBenchResult(Result, kind="vbench", command="prophy evaluate vbench JSON …"):
    """The quality score.

    Attributes:
        quality: weighted mean of the normalised dimensions, 0 to 1.
        raw: by dimension, as VBench reports it.
        normalised: by dimension.
        videos: measured in the dimension that has most.
        counts: videos measured in each dimension; VBench's standard suite has other prompts for each. Empty in results
            of before it was kept.
    """

    quality: float
    raw: dict[str, float]
    normalised: dict[str, float]
    videos: Count
    counts: dict[str, Count] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_alike("dimensions", (self.raw, self.normalised, self.counts or self.raw))
