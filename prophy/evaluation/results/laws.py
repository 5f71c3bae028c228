"""Laws: by split and column, how many are obeyed, and what a paired backbone's clips do."""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Interval, Result
from prophy.evaluation.results.interval import Count, PhenomenonId
from prophy.evaluation.results.result import require_alike
from prophy.worlds.scope import SCOPE

REAL, UNLAWFUL, AUTOENCODER = "real", "unlawful", "autoencoder"  #: columns of renders
BACKBONE, PROPHY = "backbone", "ProPhy"  #: columns of generated clips


@dataclass(frozen=True)
class ClipErrors:
    """One clip: error by law (``scene: law``), and why a scene could not be tracked, by scene."""

    errors: dict[str, float]
    lost: dict[str, str]


@dataclass(frozen=True)
class LawScore:
    """One law in one column.

    Attributes:
        obeyed: share of clips whose error is within the law's tolerance.
        error: mean error, 0 to 1.
        lost: clips without a track; they are in both means, as failures.
        tolerance: up to which error the law is obeyed.
    """

    obeyed: Interval
    error: Interval
    lost: Count
    tolerance: float


@dataclass(frozen=True)
class ColumnScore:
    """One column on one split; every law counts alike.

    Attributes:
        lost: share of scenes without a track.
        minus_backbone: paired difference of the mean error to the backbone's, negative is better; None for real
            renders, also through the autoencoder, for the backbone, and without one.
        mended: share of laws that the backbone's clip breaks and this one obeys; None as above.
        broken: share of laws that the backbone's clip obeys and this one breaks; None as above.
    """

    obeyed: Interval
    error: Interval
    lost: Interval
    minus_backbone: Interval | None
    mended: Interval | None
    broken: Interval | None
    by_law: dict[str, LawScore]


@dataclass(frozen=True)
class LawsResult(Result, kind="laws", command="prophy evaluate laws"):
    """Every column on every split.

    Attributes:
        scores: by split, then by column.
        clips: of each split.
        steps: denoising steps; None: the app's.
        model_sha256: by column; none for real renders.
        verdicts: by split and column, every clip's errors and lost tracks.
        size: of the clips, width by height by frames.
        fps: frames a second.
        phenomena: ids that the clips are drawn from.
        grammar: that their captions are of, one of :data:`prophy.worlds.language.GRAMMARS`.
    """

    scores: dict[str, dict[str, ColumnScore]]
    clips: Count
    steps: Count | None
    model_sha256: dict[str, str]
    verdicts: dict[str, dict[str, tuple[ClipErrors, ...]]]
    size: str = "64x64x17"
    fps: Count = 8
    phenomena: tuple[PhenomenonId, ...] = SCOPE
    grammar: str = "first"

    def __post_init__(self) -> None:
        require_alike("columns of the splits", self.scores.values())
        for split, columns in self.scores.items():
            require_alike(f"laws of the columns of {split}", (column.by_law for column in columns.values()))

    @property
    def weights(self) -> dict[str, str]:
        return self.model_sha256
