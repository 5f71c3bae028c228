"""What happens where in a clip."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Placed:
    """One event of a clip, before anything is simulated.

    Attributes:
        phenomenon: its id.
        variant: which of the phenomenon's scenes.
        colours: colour names, in the order in which a caption mentions them.
        place: ``left``, ``right`` or ``centre``.
    """

    phenomenon: str
    variant: str
    colours: tuple[str, ...]
    place: str
