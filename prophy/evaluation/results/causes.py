"""Causes: what the branch changes, what muting an expert breaks and what it leaves, where, and in what dose."""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Interval, Measured, Result
from prophy.evaluation.results.interval import Count, PhenomenonId
from prophy.evaluation.results.laws import ColumnScore
from prophy.evaluation.results.result import require_alike
from prophy.worlds.scope import SCOPE

#: what is done: the expert of the phenomenon muted; its tokens changed as much at random; another active expert muted
OWN, RANDOM, OTHER = "own expert muted", "random change of equal size", "another active expert muted"


@dataclass(frozen=True)
class PixelChange:
    """How much a clip changes, mean absolute difference in levels of 255.

    Attributes:
        inside: the area of what was done.
        outside: the rest of the picture.
        ratio: outside over inside.
    """

    inside: Interval
    outside: Interval
    ratio: Interval


@dataclass(frozen=True)
class BudgetScore:
    """What the branch changes on one split.

    Attributes:
        columns: laws obeyed by real renders through the autoencoder, with the branch off and with it on, by name.
        gain: laws obeyed with the branch minus without, paired.
        of_autoencoder: laws obeyed with the branch, as a share of what the autoencoder keeps of real renders.
        pixels: change from off to on, inside and outside the areas of the phenomena.
    """

    columns: dict[str, ColumnScore]
    gain: Interval
    of_autoencoder: Interval
    pixels: PixelChange


@dataclass(frozen=True)
class CausalBudgetResult(Result, kind="budget", command="prophy evaluate budget"):
    """The branch off and on, from the same noise.

    Attributes:
        scores: by split.
        areas: how it is known where the phenomena of a generated clip are, ``place`` or ``segmenter``.
        clips: of each split.
        steps: denoising steps; None: the app's.
        size: of the clips, width by height by frames.
        fps: frames a second.
        model_sha256: of the model with its branch.
        phenomena: ids that the clips are drawn from.
        grammar: that their captions are of, one of :data:`prophy.worlds.language.GRAMMARS`.
    """

    scores: dict[str, BudgetScore]
    areas: str
    clips: Count
    steps: Count | None
    size: str
    fps: Count
    model_sha256: str
    phenomena: tuple[PhenomenonId, ...] = SCOPE
    grammar: str = "first"

    def __post_init__(self) -> None:
        require_alike("columns of the splits", (score.columns for score in self.scores.values()))

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}


@dataclass(frozen=True)
class PairedClip:
    """A clip with the branch as it is, and without it.

    Attributes:
        run: its name among the clips on disk.
        prompt: of the clip.
        seed: of its noise.
        on: share of the laws obeyed, by phenomenon shown.
        off: the same with the branch switched off.
    """

    run: str
    prompt: str
    seed: int
    on: dict[PhenomenonId, Measured]
    off: dict[PhenomenonId, Measured]


@dataclass(frozen=True)
class Trial:
    """One clip with one thing done to the branch.

    Attributes:
        clip: its place in the result's clips.
        change: :data:`OWN`, :data:`RANDOM` or :data:`OTHER`.
        phenomenon: whose expert, or whose tokens.
        expert: that was muted, or whose change was imitated.
        obeyed: share of the laws obeyed, by phenomenon shown.
        kept: whether every law of a phenomenon keeps its verdict, by phenomenon shown.
        inside: change of the phenomenon's own area, levels of 255; not a number where the clip does not show it.
        outside: change of the rest.
    """

    clip: Count
    change: str
    phenomenon: PhenomenonId
    expert: Count
    obeyed: dict[PhenomenonId, Measured]
    kept: dict[PhenomenonId, bool]
    inside: Measured
    outside: Measured


@dataclass(frozen=True)
class SelectivityCell:
    """What muting the expert of one phenomenon does to the laws of another, or to its own.

    Attributes:
        broken: laws obeyed with the branch minus with the expert muted, mean over the clips that show the second.
        shown: of those clips, how many show the first one too: in the others its expert has nothing to do.
        picture: PNG beside the result, of clips on, off and muted; None without one.
    """

    broken: Interval
    shown: Count
    picture: str | None


@dataclass(frozen=True)
class ChangeScore:
    """What one kind of change does, over the clips that show the phenomenon whose expert or tokens are changed.

    Attributes:
        own: laws obeyed by that phenomenon.
        other: laws obeyed by the others in the same clips.
        isolation: share of trials in which all laws of the others keep their verdict.
        pixels: inside and outside the phenomenon's own area.
    """

    own: Interval
    other: Interval
    isolation: Interval
    pixels: PixelChange


@dataclass(frozen=True)
class SelectivityScores:
    """What all trials come to. Of clips that show the phenomenon whose expert is muted, unless said otherwise.

    Attributes:
        own_on: laws obeyed by that phenomenon, with the branch as it is.
        own_off: the same with the branch switched off.
        other_on: laws obeyed by the others in the same clips, with the branch as it is.
        changes: by what was done.
        minus_off: own laws obeyed with the expert muted minus with the branch off, paired; 0: muted is as good as off.
        diagonal: mean over phenomena of what is broken by muting their own expert.
        off_diagonal: mean over pairs of phenomena in one clip of what muting the one's expert breaks of the other.
        score: diagonal minus off-diagonal.
        absent: share of trials in which the expert of a phenomenon that the clip does not show is muted and all laws
            keep their verdict; None where no such expert was muted.

    Raises:
        ValueError: nothing says what muting the own expert does.
    """

    own_on: Interval
    own_off: Interval
    other_on: Interval
    changes: dict[str, ChangeScore]
    minus_off: Interval
    diagonal: Interval
    off_diagonal: Interval
    score: Interval
    absent: Interval | None

    def __post_init__(self) -> None:
        if OWN not in self.changes:
            raise ValueError(f"{OWN!r} is not among the changes")


@dataclass(frozen=True)
class SelectivityResult(Result, kind="selectivity", command="prophy evaluate selectivity --every-expert"):
    """The matrix of experts and phenomena, and its controls.

    ``areas``, ``steps``, ``size``, ``fps``, ``model_sha256`` and ``grammar`` are as for :class:`CausalBudgetResult`.

    Attributes:
        phenomena: ids, in the order of rows (whose expert is muted) and columns (whose laws are looked at).
        experts: refinement expert by phenomenon.
        by_name: experts are named by their order; else localisation matched them.
        matrix: row by row; None where no clip shows the column's phenomenon with the row's expert muted.
        scores: over all trials.
        clips: behind the trials.
        trials: each with its verdicts.
        split: of the worlds.
    """

    phenomena: tuple[PhenomenonId, ...]
    experts: dict[PhenomenonId, Count]
    by_name: bool
    matrix: tuple[tuple[SelectivityCell | None, ...], ...]
    scores: SelectivityScores
    clips: tuple[PairedClip, ...]
    trials: tuple[Trial, ...]
    areas: str
    split: str
    steps: Count | None
    size: str
    fps: Count
    model_sha256: str
    grammar: str = "first"

    def __post_init__(self) -> None:
        size = len(self.phenomena)
        if [len(row) for row in self.matrix] != [size] * size:
            raise ValueError(f"the matrix is none of {size} by {size} phenomena")
        if any(trial.clip >= len(self.clips) for trial in self.trials):
            raise ValueError(f"a trial is of none of the {len(self.clips)} clips")

    @property
    def pictures(self) -> tuple[str, ...]:
        """Of the cells, each once."""
        return tuple(dict.fromkeys(cell.picture for row in self.matrix for cell in row if cell and cell.picture))

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}


@dataclass(frozen=True)
class SpecificityLevel:
    """One noise level, by what was done.

    Attributes:
        noise: of the latent.
        energy: share of the squared change of the predicted clean latent that lies in the phenomenon's mask, over the
            mask's share of the latent: 1 is everywhere alike.
        size: root mean square of that change, over that of switching the branch off.
        by_phenomenon: ``energy`` of :data:`OWN`.
    """

    noise: float
    energy: dict[str, Interval]
    size: dict[str, Interval]
    by_phenomenon: dict[PhenomenonId, Interval]

    def __post_init__(self) -> None:
        require_alike("changes of a noise level", (self.energy, self.size))


@dataclass(frozen=True)
class SpecificityResult(Result, kind="specificity", command="prophy evaluate specificity"):
    """One pass at a fixed noisy latent; nothing is generated.

    ``phenomena``, ``grammar``, ``size`` and ``fps`` are as for :class:`CausalBudgetResult`.

    Attributes:
        levels: by noise.
        largest: the energy that a change inside the mask alone would have: its area share's inverse, mean.
        clips: held-out clips.
        split: of the worlds.
        by_name: see :class:`SelectivityResult`.
    """

    levels: tuple[SpecificityLevel, ...]
    largest: Interval
    clips: Count
    split: str
    by_name: bool
    model_sha256: str
    phenomena: tuple[PhenomenonId, ...] = SCOPE
    grammar: str = "first"
    size: str = "64x64x17"
    fps: Count = 8

    def __post_init__(self) -> None:
        require_alike("changes of the noise levels", (level.energy for level in self.levels))

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}


@dataclass(frozen=True)
class Dose:
    """The branch at one strength.

    Attributes:
        strength: its residuals are multiplied with this.
        obeyed: laws obeyed.
        more: laws obeyed minus those at the strength before, paired; None for the first.
        pixels: change of the clip from strength 0, levels of 255.
    """

    strength: float
    obeyed: Interval
    more: Interval | None
    pixels: Interval


@dataclass(frozen=True)
class Sufficiency:
    """Own laws obeyed, mean over phenomena, under four routings.

    Attributes:
        off: the branch switched off.
        none: the experts of all phenomena muted.
        alone: the experts of all other phenomena muted.
        on: the branch as it is.
        enough: alone minus none, paired: what one expert carries by itself.
        by_phenomenon: ``alone``.
    """

    off: Interval
    none: Interval | None
    alone: Interval
    on: Interval
    enough: Interval | None
    by_phenomenon: dict[PhenomenonId, Interval]


@dataclass(frozen=True)
class DoseResult(Result, kind="dose", command="prophy evaluate dose"):
    """How much of the branch, and which of its experts, the laws need.

    ``steps``, ``size``, ``fps``, ``model_sha256``, ``phenomena`` and ``grammar`` are as for
    :class:`CausalBudgetResult`.

    Attributes:
        doses: by rising strength.
        monotone: share of clips in which no law obeyed at a strength is broken at the next one, up to strength 1.
        sufficiency: one phenomenon's expert by itself.
        clips: of the split.
        split: of the worlds.
        by_name: see :class:`SelectivityResult`.
    """

    doses: tuple[Dose, ...]
    monotone: Interval
    sufficiency: Sufficiency
    clips: Count
    split: str
    by_name: bool
    steps: Count | None
    size: str
    fps: Count
    model_sha256: str
    phenomena: tuple[PhenomenonId, ...] = SCOPE
    grammar: str = "first"

    @property
    def rises(self) -> bool:
        """Whether the mean of the laws obeyed never falls up to strength 1."""
        obeyed = [dose.obeyed.value for dose in self.doses if dose.strength <= 1]
        return obeyed == sorted(obeyed)

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}
