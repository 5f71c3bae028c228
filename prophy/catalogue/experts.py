"""What the experts of a branch were measured to do: ``experts.json`` beside its weights (no torch).

Written by ``prophy evaluate experts``, read by the page, which names an expert by what it does. Ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from prophy import phenomena
from prophy.catalogue.describe import BRANCH_FOLDER
from prophy.files import read_regular
from prophy.schema import MOST_BYTES, STRICT, AtLeastOne, Share, decoded

FILE = "experts.json"
DOMINATES = 0.5  #: of an expert's weight: what lies on one phenomenon gives it its name


@dataclass(frozen=True)
class ExpertShares:
    """Where the weight of each refinement expert lies, on clips that were not trained on.

    Attributes:
        shares: by expert, then by phenomenon id: the share of the expert's weight, over all tokens at which any
            phenomenon acts, that lies on tokens where this one acts. They add up to more than 1 where two act at once.
        used: by expert: its share of the weight over all tokens, background included.
        learnt: ids of the phenomena that the branch was taught.
        model_sha256: of the model that was measured, as runs record it: by
            :func:`prophy.generation.identity.model_hash`, and by its files, as release 0.1 did.
        clips: how many were measured.
        phenomena_version: :data:`prophy.phenomena.VERSION`.
        grammar: that the clips' captions are of, one of :data:`prophy.worlds.language.GRAMMARS`.
        size: of the clips, width by height by frames.
        fps: frames a second.

    Raises:
        ValueError: fields that contradict each other.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    shares: tuple[dict[str, Share], ...]
    used: tuple[Share, ...]
    learnt: tuple[str, ...]
    model_sha256: tuple[str, ...]
    clips: AtLeastOne
    phenomena_version: str = phenomena.VERSION
    grammar: str = "first"
    size: str = "64x64x17"
    fps: AtLeastOne = 8

    def __post_init__(self) -> None:
        if self.phenomena_version != phenomena.VERSION:
            raise ValueError(f"measured for phenomena {self.phenomena_version!r}, not {phenomena.VERSION!r}")
        if len(self.used) != len(self.shares):
            raise ValueError(f"shares of {len(self.shares)} experts, use of {len(self.used)}")
        named = {name for shares in self.shares for name in shares} | set(self.learnt)
        if unknown := sorted(named - set(phenomena.IDS)):
            raise ValueError(f"unknown phenomenon {unknown[0]!r:.60}")

    @property
    def names(self) -> tuple[str, ...]:
        """By expert, such as "melting 71 %"; empty where nothing dominates."""
        return tuple(map(_name, self.shares))

    def is_of(self, model_sha256: str) -> bool:
        """Whether these very weights were measured, in this precision."""
        return model_sha256 in self.model_sha256

    @property
    def of(self) -> tuple[str, ...]:
        """By expert, the id of the phenomenon that it is named by; empty where nothing dominates."""
        return tuple(_dominant(shares) for shares in self.shares)


def read_experts(model: str | Path, branch: str | Path | None = None) -> ExpertShares | None:
    """The measured shares of a branch; None if they were not measured, or the branch is not on this machine.

    Args:
        model: a diffusers folder or hub id.
        branch: a folder or hub id; default: the ``branch`` folder inside ``model``.

    Raises:
        ValueError: the file is damaged or of another release. One line.
    """
    folder = Path(model) / BRANCH_FOLDER if branch is None else Path(branch)
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return decoded(ExpertShares, read_regular(path, MOST_BYTES))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): measure it again with `prophy evaluate experts`") from None


def _dominant(shares: Mapping[str, float]) -> str:
    largest = max(shares, key=lambda name: shares[name], default="")
    return largest if largest and shares[largest] >= DOMINATES else ""


def _name(shares: Mapping[str, float]) -> str:
    dominant = _dominant(shares)
    return f"{phenomena.by_id(dominant).name} {100 * shares[dominant]:.0f} %" if dominant else ""
