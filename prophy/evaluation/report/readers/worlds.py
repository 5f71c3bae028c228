"""What is said of the worlds that a result is of."""

from __future__ import annotations

from collections.abc import Sequence


def of_worlds(phenomena: Sequence[str], grammar: str, size: str, fps: int) -> str:
    """Which clips were measured: a note."""
    return f"clips of {len(phenomena)} phenomena in words of the grammar {grammar}, {size} at {fps} a second"
