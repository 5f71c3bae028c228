"""What one physical event in a synthetic world is, and the register of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from prophy.phenomena import by_id
from prophy.worlds.stage import FPS, FRAMES, Knobs, Painter, Region

#: phenomenon id -> the events that show it
EVENTS: dict[str, list[type[Event]]] = {}

#: seconds at which the frames are taken
TIMES = np.arange(FRAMES) / FPS


class Event(ABC):
    """One phenomenon at work in a region of the stage.

    The constructor simulates the whole clip and fills :attr:`state`; :meth:`draw` paints one frame of it.

    Attributes:
        phenomenon: id of the phenomenon shown.
        variant: which of the phenomenon's scenes this is; the captions are written per variant.
        colour_count: how many colours a caption mentions.
        colours: their names, in order.
        state: what the simulator knows, by name: one row per frame for what moves, scalars for constants.
    """

    phenomenon: str
    variant: str
    colour_count: int = 1
    colours: tuple[str, ...]
    state: dict[str, np.ndarray]

    def __init_subclass__(cls) -> None:
        by_id(cls.phenomenon)
        EVENTS.setdefault(cls.phenomenon, []).append(cls)

    @abstractmethod
    def __init__(self, knobs: Knobs, region: Region, colours: tuple[str, ...]) -> None: ...

    @abstractmethod
    def draw(self, painter: Painter, frame: int) -> None:
        """Paint frame ``frame`` of the event, and its mask."""
