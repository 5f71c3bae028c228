"""Likelihood preference: how often a model finds the impossible one of two clips the likelier."""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Interval, Measured, Result
from prophy.evaluation.results.interval import Count, PhenomenonId
from prophy.evaluation.results.result import require_alike

BASE, PROPHY, MUTED = "backbone", "ProPhy", "ProPhy, expert muted"  #: columns


@dataclass(frozen=True)
class PairLoss:
    """One pair's denoising losses, means over noise levels.

    Attributes:
        group: pairs of one group share a scene; they are resampled together.
        law: that the impossible clip breaks.
        valid: loss of the clip that obeys it.
        impossible: of the one that does not.
    """

    group: str
    law: str
    valid: Measured
    impossible: Measured


@dataclass(frozen=True)
class PreferenceScore:
    """One column.

    Attributes:
        wrong: share of pairs whose impossible clip has the lower loss, mean over laws; one half is chance.
        margin: loss of the impossible clip minus that of the valid one, over their mean; above 0 is right.
        minus_base: paired difference of ``wrong`` to the backbone's; None for it, and without one.
        by_law: ``wrong`` of each law.
    """

    wrong: Interval
    margin: Interval
    minus_base: Interval | None
    by_law: dict[str, Interval]


@dataclass(frozen=True)
class PreferenceResult(Result, kind="preference", command="prophy evaluate preference"):
    """Every column on the same pairs with the same noise.

    Attributes:
        source: of the pairs, such as ``worlds, test split``.
        scores: by column.
        noises: levels that the losses are means over.
        pairs: how many.
        groups: of pairs of one scene.
        model_sha256: by column.
        losses: of every pair, by column.
        phenomena: ids that the pairs of the worlds are drawn from; None, as the three below: of a benchmark, or
            measured by a release that did not note it.
        grammar: that their captions are of, one of :data:`prophy.worlds.language.GRAMMARS`.
        size: of the clips, width by height by frames.
        fps: frames a second.
    """

    source: str
    scores: dict[str, PreferenceScore]
    noises: tuple[float, ...]
    pairs: Count
    groups: Count
    model_sha256: dict[str, str]
    losses: dict[str, tuple[PairLoss, ...]]
    phenomena: tuple[PhenomenonId, ...] | None = None
    grammar: str | None = None
    size: str | None = None
    fps: Count | None = None

    def __post_init__(self) -> None:
        require_alike("laws of the columns", (score.by_law for score in self.scores.values()))
        if any(len(losses) != self.pairs for losses in self.losses.values()):
            raise ValueError(f"a column has losses of another number of pairs than {self.pairs}")

    @property
    def weights(self) -> dict[str, str]:
        return self.model_sha256
