"""Flow loss: of the backbone, of the backbone with its branch and of a control, on the same noisy clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prophy.evaluation.results import Interval, Result
from prophy.evaluation.results.interval import Count, PhenomenonId
from prophy.evaluation.results.result import require_alike
from prophy.worlds.scope import SCOPE

BACKBONE, BRANCH, CONTROL = "backbone", "backbone + branch", "control"  #: models

Where = Literal["everywhere", "acting"]  #: over the whole latent, or over the tokens that a phenomenon covers


@dataclass(frozen=True)
class Comparison:
    """The mean loss of a model, and its paired difference to the backbone (negative: better than the backbone)."""

    loss: Interval
    difference: Interval | None


@dataclass(frozen=True)
class FlowLevel:
    """One noise level: by model, over the whole latent and where the phenomena are.

    Attributes:
        branch_minus_control: paired differences of the branch to the control, ``everywhere`` and ``acting``; empty
            without a control.
    """

    noise: float
    everywhere: dict[str, Comparison]
    acting: dict[str, Comparison]
    branch_minus_control: dict[Where, Interval]

    def models(self, where: Where) -> dict[str, Comparison]:
        """By model."""
        return self.everywhere if where == "everywhere" else self.acting

    def differences(self, where: Where) -> dict[str, Interval]:
        """Every paired difference that was measured, by what is compared; the last says most about the branch."""
        found = {f"{name} minus {BACKBONE}": one.difference for name, one in self.models(where).items()}
        found["branch minus control"] = self.branch_minus_control.get(where)
        return {name: difference for name, difference in found.items() if difference is not None}


@dataclass(frozen=True)
class FlowResult(Result, kind="flow", command="prophy evaluate flow --control DIR"):
    """All levels, and what was compared.

    Attributes:
        levels: by noise.
        clips: held-out clips.
        split: of the worlds.
        model_sha256: of the model with its branch.
        control: its folder's name; None without one.
        phenomena: ids that the clips are drawn from.
        grammar: that their captions are of, one of :data:`prophy.worlds.language.GRAMMARS`.
        size: of the clips, width by height by frames.
        fps: frames a second.
    """

    levels: tuple[FlowLevel, ...]
    clips: Count
    split: str
    model_sha256: str
    control: str | None
    phenomena: tuple[PhenomenonId, ...] = SCOPE
    grammar: str = "first"
    size: str = "64x64x17"
    fps: Count = 8

    def __post_init__(self) -> None:
        require_alike("models", (part for level in self.levels for part in (level.everywhere, level.acting)))

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}
