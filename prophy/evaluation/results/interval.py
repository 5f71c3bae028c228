"""A mean with its interval, and the other types that fields of results share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, WrapValidator

from prophy.phenomena import BY_ID, IDS


def _null_is_nan(value: object, finite: Callable[[object], float]) -> float:
    return math.nan if value is None else finite(value)


def _known(phenomenon: str) -> str:
    if phenomenon not in BY_ID:
        raise ValueError(f"unknown phenomenon {phenomenon!r}: one of {', '.join(IDS)}")
    return phenomenon


#: A number; NaN, in a file null, where nothing could be measured.
Measured = Annotated[float, WrapValidator(_null_is_nan)]
Count = Annotated[int, Field(ge=0)]
PhenomenonId = Annotated[str, AfterValidator(_known)]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval.

    Attributes:
        value: the mean; NaN when nothing could be measured.
        low: 2.5th percentile over resamples.
        high: 97.5th percentile.
        n: clips, prompts or pairs behind it.

    Raises:
        ValueError: a mean without bounds.
    """

    value: Measured
    low: Measured
    high: Measured
    n: Count

    def __post_init__(self) -> None:
        if self.measured and (math.isnan(self.low) or math.isnan(self.high)):
            raise ValueError(f"the mean {self.value} has no bounds")

    @property
    def measured(self) -> bool:
        """Whether there is a mean."""
        return not math.isnan(self.value)

    @property
    def holds_zero(self) -> bool:
        """Whether 0 lies within the bounds."""
        return self.low <= 0 <= self.high

    def scaled(self, factor: float) -> Interval:
        """The same in other units."""
        return Interval(factor * self.value, factor * self.low, factor * self.high, self.n)
