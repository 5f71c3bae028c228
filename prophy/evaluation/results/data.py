"""The data and the judges behind a work folder's results: too large to ship, so only their hashes."""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Result
from prophy.evaluation.results.interval import Count
from prophy.schema import check_fields


@dataclass(frozen=True)
class DataSet:
    """A cache of clips that results were measured on: its folder's name, split, size, and a hash of its arrays."""

    name: str
    split: str
    clips: Count
    sha256: str

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class DataResult(Result, kind="data", command="prophy evaluate report runs/tiny"):
    """What a work folder's results were measured on, and by which judges."""

    sets: tuple[DataSet, ...]
    judges_sha256: dict[str, str]
