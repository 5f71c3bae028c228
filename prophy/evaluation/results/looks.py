"""Looks: which things stand where in a clip, in which colours, how many; and the error of the judge that says so."""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Interval, Measured, Result
from prophy.evaluation.results.interval import Count, PhenomenonId
from prophy.evaluation.results.judges import JudgeRecipe
from prophy.evaluation.results.result import require_alike
from prophy.schema import Share, Width

LAWFUL, UNLAWFUL = "lawful renders", "unlawful renders"
REAL, AUTOENCODER = "real renders", "real renders through the autoencoder"  #: columns beside a model's
BACKBONE, PROPHY = "backbone alone", "with the branch"


@dataclass(frozen=True)
class LooksRecipe(JudgeRecipe):
    """How the judge of looks is trained; every second training render is by clocks that obey no law.

    Attributes:
        test_clips: held-out renders of each kind, looked at once, at the end.
        nothing: share of each batch that is turned into an empty stage.
        lone: share of the training renders with two balls in which one is hidden.
    """

    width: Width = 48
    nothing: Share = 0.03
    lone: Share = 0.2


@dataclass(frozen=True)
class LooksError:
    """How the judge reads one kind of renders.

    Attributes:
        exact: share of clips of which every answer is right: scenes and that there are no others, colours, numbers.
        by_question: share of right answers, where there is one.
        by_scene: by ``phenomenon, variant``, share of events that are read exactly.
    """

    exact: Interval
    by_question: dict[str, Interval]
    by_scene: dict[str, Interval]


@dataclass(frozen=True)
class LooksJudgeResult(Result, kind="looks-judge", command="prophy evaluate looks-judge"):
    """How good the judge of looks is on renders it has never seen.

    Attributes:
        errors: by kind of renders; those through an autoencoder among them where one was given.
        lone: share of collisions with one ball hidden in which one ball is counted, of the right colour; NaN: no such
            scene.
        empty: share of empty stages on which nothing is found.
        recipe: what was trained.
    """

    errors: dict[str, LooksError]
    lone: Measured
    empty: float
    recipe: LooksRecipe

    def __post_init__(self) -> None:
        require_alike("questions", (error.by_question for error in self.errors.values()))


@dataclass(frozen=True)
class Shown:
    """A scene at a place, as asked for or as found.

    Attributes:
        colours: of its things; None where the prompt leaves one open.
        number: of its things; 0 where the prompt does not count.
    """

    phenomenon: PhenomenonId
    variant: str
    place: str
    colours: tuple[str | None, ...]
    number: Count


@dataclass(frozen=True)
class PromptLooks:
    """One prompt and what is seen in its clip."""

    prompt: str
    seed: int
    wording: str
    asked: tuple[Shown, ...]
    found: tuple[Shown, ...]


@dataclass(frozen=True)
class LooksScore:
    """How often clips look as asked for: shares of clips, but for ``by_phenomenon``.

    Attributes:
        things: that show every scene asked for, in the number that is said, somewhere.
        colours: that show them in the colours that are said.
        places: that show them where they are asked for.
        all: of the three together.
        exactly: of the three together and nothing besides.
        single: ``all``, of prompts of one phenomenon.
        both: ``all``, of prompts of two.
        by_phenomenon: share of the events asked for that are shown where and as they are asked for.
        by_wording: ``all``, by kind of prompt.
    """

    things: Interval
    colours: Interval
    places: Interval
    all: Interval
    exactly: Interval
    single: Interval
    both: Interval
    by_phenomenon: dict[PhenomenonId, Interval]
    by_wording: dict[str, Interval]


@dataclass(frozen=True)
class LooksResult(Result, kind="looks", command="prophy evaluate looks"):
    """The model's score beside those of real renders of the same prompts, what made it, and every verdict.

    Attributes:
        scores: by column: the model's, of real renders and of those through the autoencoder.
        judge: the judge's own exact share on held-out renders, by kind.
        branch: whether the branch took part.
        size: of the clips, width by height by frames.
        fps: frames a second.
    """

    scores: dict[str, LooksScore]
    judge: dict[str, Interval]
    model_sha256: str
    branch: bool
    grammar: str
    steps: Count
    guidance: float
    size: str
    fps: Count
    verdicts: tuple[PromptLooks, ...]

    def __post_init__(self) -> None:
        if self.column not in self.scores:
            raise ValueError(f"the column {self.column!r} is missing")

    @property
    def column(self) -> str:
        """The model's own."""
        return PROPHY if self.branch else BACKBONE

    @property
    def stem(self) -> str:
        return self.kind if self.branch else f"{self.kind}-no-branch"

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}
