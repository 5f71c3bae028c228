"""Discrimination: does the phenomenon map tell all phenomena apart, those that a clip does not show too?"""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Interval, Measured, Result
from prophy.evaluation.results.interval import Count, PhenomenonId
from prophy.worlds.scope import SCOPE


@dataclass(frozen=True)
class DiscriminationLevel:
    """One noise level. Rows of both tables are the phenomena shown, columns all of them.

    Attributes:
        noise: of the latents.
        confusion: of the tokens that a phenomenon covers, and no other does, the share at which each map is the
            highest; mean over clips.
        right: its diagonal, mean over phenomena.
        correlation: of a phenomenon's map with each other one over the tokens of the clips that show it, Pearson, mean
            over clips; not a number with itself.
        ap: token average precision over the tokens of all clips at once, those that do not show the phenomenon too;
            mean over phenomena.
        ap_by_phenomenon: of each.
    """

    noise: float
    confusion: tuple[tuple[Measured, ...], ...]
    right: Interval
    correlation: tuple[tuple[Measured, ...], ...]
    ap: Interval
    ap_by_phenomenon: dict[PhenomenonId, Interval]


@dataclass(frozen=True)
class DiscriminationResult(Result, kind="discrimination", command="prophy evaluate discrimination"):
    """The phenomenon map at every noise level.

    Attributes:
        shown: ids of the phenomena that the clips show, the rows.
        phenomena: all ids, the columns.
        levels: by noise.
        clips: held-out clips.
        split: of the worlds.
        drawn: ids that the clips are drawn from.
        grammar: that their captions are of, one of :data:`prophy.worlds.language.GRAMMARS`.
        size: of the clips, width by height by frames.
        fps: frames a second.
    """

    shown: tuple[PhenomenonId, ...]
    phenomena: tuple[PhenomenonId, ...]
    levels: tuple[DiscriminationLevel, ...]
    clips: Count
    split: str
    model_sha256: str
    drawn: tuple[PhenomenonId, ...] = SCOPE
    grammar: str = "first"
    size: str = "64x64x17"
    fps: Count = 8

    def __post_init__(self) -> None:
        if not self.levels:
            raise ValueError("no noise levels")
        for level in self.levels:
            for name, table in (("confusion", level.confusion), ("correlation", level.correlation)):
                if [len(row) for row in table] != [len(self.phenomena)] * len(self.shown):
                    raise ValueError(f"{name} is no table of {len(self.shown)} by {len(self.phenomena)} phenomena")

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}

    def most_alike(self, level: DiscriminationLevel) -> tuple[str, str, float]:
        """The two phenomena whose maps are most alike at a level, by id, and how much."""
        pairs = [
            (p, q, value)
            for p, row in zip(self.shown, level.correlation, strict=True)
            for q, value in zip(self.phenomena, row, strict=True)
            if value == value
        ]
        return max(pairs, key=lambda pair: pair[2], default=(self.shown[0], self.shown[0], float("nan")))
