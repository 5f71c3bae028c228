"""The register of the impossible twins, and what several of them do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from prophy.worlds.clocks import FINER
from prophy.worlds.event import Event
from prophy.worlds.placed import Placed

E = TypeVar("E", bound=Event)
Rng = np.random.Generator


@dataclass(frozen=True)
class Twin:
    """How one law of a scene is broken.

    Attributes:
        seen: what one sees, for documents and sheets.
        breach: changes an event that was simulated at :func:`prophy.worlds.clocks.fine_times`. It returns the rows of
            these times to draw, one for each frame, or None where time goes by as ever.
    """

    seen: str
    breach: Callable[[Any, Rng], np.ndarray | None]


@dataclass(frozen=True)
class Broken:
    """The law that a clip breaks.

    Attributes:
        law: its name.
        event: which of the clip's events breaks it, from 0; the other stays lawful.
    """

    law: str
    event: int = 0


#: (phenomenon, variant) -> the twin of each of the scene's laws, by the law's name
TWINS: dict[tuple[str, str], dict[str, Twin]] = {}


def twin(kind: type[E], law: str, seen: str) -> Callable[[Callable[[E, Rng], np.ndarray | None]], Any]:
    """Register what breaks a law of a scene."""

    def register(breach: Callable[[E, Rng], np.ndarray | None]) -> Callable[[E, Rng], np.ndarray | None]:
        TWINS.setdefault((kind.phenomenon, kind.variant), {})[law] = Twin(seen, breach)
        return breach

    return register


def twin_of(events: tuple[Placed, ...], broken: Broken) -> Twin:
    """The twin that a clip of these events is asked for.

    Raises:
        ValueError: the clip has no such event, or the event's scene no such law.
    """
    if not 0 <= broken.event < len(events):
        raise ValueError(f"the clip has no event {broken.event}: it shows {len(events)}, counted from 0")
    event = events[broken.event]
    laws = TWINS[event.phenomenon, event.variant]
    if broken.law not in laws:
        raise ValueError(
            f"{event.phenomenon} ({event.variant}) has no law {broken.law!r}: break one of {', '.join(laws)}"
        )
    return laws[broken.law]


# --- what several of them do ------------------------------------------------------------------------------------------


def elapsed(event: Event) -> np.ndarray:
    """How much of the clip has gone by, 0 to 1, ``(T,)``."""
    return event.times / event.times[-1]


def rows_at(event: Event, share_F: np.ndarray) -> np.ndarray:
    """The rows to draw so that frame by frame so much of the clip seems to have gone by."""
    return np.round(share_F * FINER * (event.stage.frames - 1)).astype(int)


def quickening(event: Event, rng: Rng) -> np.ndarray:
    """It runs at a quarter of its pace at first, at seven times that in the end."""
    u = np.linspace(0, 1, event.stage.frames)
    return rows_at(event, u - 0.75 * u * (1 - u))


def changing_pace(event: Event, rng: Rng) -> np.ndarray:
    """It quickens, or slows down as much."""
    rows = quickening(event, rng)
    return rows if rng.random() < 0.5 else rows[-1] - rows[::-1]


def growth(event: Event, rng: Rng) -> np.ndarray:
    """Factors of a thing that grows, or shrinks, ``(T,)``."""
    return 1 + (0.5 if rng.random() < 0.5 else -0.45) * elapsed(event)


def relapsing(progress: np.ndarray) -> np.ndarray:
    """A progress from 0 to 1 that runs ahead, goes back by a third of the way, and arrives in the end."""
    return np.interp(progress, (0, 0.35, 0.65, 1), (0, 0.62, 0.28, 1))


def uneven(progress: np.ndarray, rng: Rng) -> np.ndarray:
    """A progress from 0 to 1 that is slow at first and fast in the end, or the other way round."""
    power = rng.uniform(2.8, 3.4)
    return progress**power if rng.random() < 0.5 else 1 - (1 - progress) ** power


def move(event: Event, position: np.ndarray) -> None:
    """Put what moves somewhere else, ``(T, …, 2)``, and give it the velocity that it has then."""
    event.state |= {"position": position, "velocity": np.gradient(position, event.times, axis=0)}
