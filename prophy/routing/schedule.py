"""When an attached branch runs; a value, saved with the run (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """When an attached branch runs; otherwise the backbone runs alone, and nothing is observed.

    A trace then holds the steps in which the branch ran, numbered among themselves; its timesteps say which they were.

    Attributes:
        unconditional: whether it runs in the unconditional pass of classifier-free guidance too, as it was trained to.
        interval: lowest and highest noise at which it runs, as shares: 0 clean, 1 pure noise.

    Raises:
        ValueError: an interval that is empty, or not within 0 and 1.
    """

    unconditional: bool = True
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _require(isinstance(self.unconditional, bool), "unconditional must be true or false")
        interval = self.interval
        is_pair = isinstance(interval, tuple | list) and len(interval) == 2
        _require(
            is_pair
            and all(isinstance(share, int | float) and not isinstance(share, bool) for share in interval)
            and 0 <= interval[0] < interval[1] <= 1,
            f"interval={interval} must be two shares of the noise, low to high, within 0 and 1",
        )
        object.__setattr__(self, "interval", tuple(interval))

    @classmethod
    def parse(cls, interval: str | None, unconditional: bool = True) -> Schedule:
        """From an interval as the command line takes it, such as ``0.3:1``; None is all of the noise.

        Raises:
            ValueError: as the class; or text that is no interval.
        """
        if interval is None:
            return cls(unconditional)
        try:
            low, high = map(float, interval.split(":"))
        except ValueError:
            raise ValueError(f"{interval!r} is no interval of the noise: write it like 0.3:1") from None
        return cls(unconditional, (low, high))

    @classmethod
    def from_json(cls, document: Any) -> Schedule:
        """What :meth:`to_json` gave.

        Raises:
            ValueError: anything else.
        """
        _require(isinstance(document, Mapping), "a schedule must be an object")
        _require(document.keys() <= {"unconditional", "interval"}, "a schedule holds unconditional and interval")
        return cls(**document)

    def to_json(self) -> dict[str, Any]:
        """Only what differs from every pass: empty for the default."""
        said = {} if self.unconditional else {"unconditional": False}
        return said if self.interval == (0, 1) else {**said, "interval": list(self.interval)}

    @property
    def is_every_pass(self) -> bool:
        return not self.to_json()

    def describe(self) -> str:
        """In words, such as ``in conditional passes, at noise 0.3 to 1``."""
        passes = "in every pass" if self.unconditional else "in conditional passes"
        low, high = self.interval
        return passes if self.interval == (0, 1) else f"{passes}, at noise {low:g} to {high:g}"

    def includes(self, noise: float) -> bool:
        """Whether the branch runs at this share of the noise."""
        low, high = self.interval
        return low <= noise <= high


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
