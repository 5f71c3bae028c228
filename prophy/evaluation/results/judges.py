"""The errors of the small judges themselves, on renders that they were not trained on, and how they were trained."""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Interval, Measured, Result
from prophy.evaluation.results.interval import PhenomenonId
from prophy.schema import AtLeastOne, BatchSize, LearningRate, LossWeight, Seed, Share, Width, check_fields
from prophy.worlds.scope import SCOPE
from prophy.worlds.stage import Stage

SEEN = 8  #: pixels along a token's side that the segmenter sees


@dataclass(frozen=True)
class JudgeRecipe:
    """How a judge is trained on renders of the worlds. Some minutes on one core.

    Attributes:
        clips: training renders.
        test_clips: held-out renders, looked at once, at the end.
        size: of the clips, width by height by frames.
        fps: frames a second.
    """

    phenomena: tuple[PhenomenonId, ...] = SCOPE
    clips: AtLeastOne = 4000
    test_clips: AtLeastOne = 500
    steps: AtLeastOne = 900
    batch: BatchSize = 32
    width: Width = 64
    rate: LearningRate = 3e-3
    weight_decay: LossWeight = 0.05
    seed: Seed = 0
    size: str = "64x64x17"
    fps: AtLeastOne = 8

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.phenomena:
            raise ValueError("phenomena=() leaves nothing to show: name some")
        Stage.parse(self.size, self.fps)  # refuses what the worlds cannot show

    @property
    def stage(self) -> Stage:
        return Stage.parse(self.size, self.fps)


@dataclass(frozen=True)
class RecogniserRecipe(JudgeRecipe):
    """How the classifier is trained.

    Attributes:
        nothing: share of each batch that is turned into an empty or a frozen stage.
    """

    test_clips: AtLeastOne = 1000
    steps: AtLeastOne = 600
    nothing: Share = 0.15


@dataclass(frozen=True)
class RecogniserResult(Result, kind="recogniser", command="prophy evaluate recogniser"):
    """How good the classifier is on renders it has never seen.

    Attributes:
        exact: share of clips whose set of phenomena is recognised exactly.
        recall: by phenomenon id, share of the clips that show it.
        false_alarms: by phenomenon id, share of the clips that do not show it.
        empty_false_alarms: share of empty stages on which anything is recognised.
        frozen_false_alarms: share of clips frozen at their first frame on which anything is recognised.
        exact_decoded: as ``exact``, on held-out renders that went through the autoencoder and back; None if not asked.
        recipe: what was trained.
    """

    exact: float
    recall: dict[PhenomenonId, Measured]
    false_alarms: dict[PhenomenonId, Measured]
    empty_false_alarms: float
    frozen_false_alarms: float
    exact_decoded: float | None
    recipe: RecogniserRecipe


@dataclass(frozen=True)
class SegmenterRecipe(JudgeRecipe):
    """How the segmenter is trained.

    Attributes:
        cell: pixels on a side of a token.
    """

    cell: Width = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        stage = self.stage
        if self.cell % SEEN or stage.width % self.cell or stage.height % self.cell:
            raise ValueError(f"cell={self.cell}: give a multiple of {SEEN} that divides {stage.width}x{stage.height}")


@dataclass(frozen=True)
class SegmenterResult(Result, kind="segmenter", command="prophy evaluate segmenter"):
    """How good the segmenter is on renders it has never seen.

    Attributes:
        ap: token average precision of the shown phenomena; positive: covered by more than half.
        overlap: intersection over union of the tokens it calls covered, by phenomenon id.
        missed: share of shown phenomena of which it finds no token, though there is one.
        alarms: tokens it marks for phenomena that a clip does not show, as a share of all such tokens.
        recipe: what was trained.
    """

    ap: Interval
    overlap: dict[PhenomenonId, Interval]
    missed: float
    alarms: Measured
    recipe: SegmenterRecipe
