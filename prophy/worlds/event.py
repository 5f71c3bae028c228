"""What one physical event in a synthetic world is, and the register of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from prophy.phenomena import by_id
from prophy.worlds.painter import Painter
from prophy.worlds.stage import Knobs, Region, Stage

#: phenomenon id -> the events that show it
EVENTS: dict[str, list[type[Event]]] = {}

_TICKS = 8  # a second: how often what only flickers or trembles changes its course


class Event(ABC):
    """One phenomenon at work in a region of the stage.

    The constructor simulates the whole clip and fills ``state``; :meth:`draw` paints one moment of it. Drawing
    reads nothing but the state and the event's other attributes, and draws no random numbers: whoever changes them
    between the two changes what is seen.

    Args:
        knobs: where the physical parameters come from.
        region: the part of the stage to play in.
        colours: names, as many as ``colour_count``.
        stage: size, length and rate of the clip.
        times: seconds to simulate, evenly spaced from 0, ``(T,)``; the stage's frames unless given. The same draws are
            made from ``knobs`` however finely the time is cut.

    Attributes:
        phenomenon: id of the phenomenon shown.
        variant: which of the phenomenon's scenes this is; the captions are written per variant.
        colour_count: how many colours a caption mentions.
        state: what the simulator knows, by name: one row per moment for what moves, scalars for constants.
    """

    phenomenon: str
    variant: str
    colour_count: int = 1
    state: dict[str, np.ndarray]

    def __init_subclass__(cls) -> None:
        by_id(cls.phenomenon)
        EVENTS.setdefault(cls.phenomenon, []).append(cls)

    def __init__(
        self,
        knobs: Knobs,
        region: Region,
        colours: tuple[str, ...],
        stage: Stage = Stage(),
        times: np.ndarray | None = None,
    ) -> None:
        self.region, self.colours, self.stage = region, colours, stage
        self.times = stage.times if times is None else times
        self.simulate(knobs)

    @abstractmethod
    def simulate(self, knobs: Knobs) -> None:
        """Run the physics over ``times`` and set ``state``."""

    @abstractmethod
    def draw(self, painter: Painter, moment: int) -> None:
        """Paint the event, and its mask, at ``times[moment]``."""

    def at(self, name: str, moment: int) -> Any:
        """What is drawn of a state (or of another attribute) at a moment: its row, or the constant itself.

        A number or an array, as the state has it. So a constant may be replaced by one row per moment, ``(T, …)``.
        """
        value = np.asarray(self.state[name] if name in self.state else getattr(self, name))
        return value[moment] if value.ndim and len(value) == len(self.times) else value

    def shown_at(self, moments: np.ndarray) -> dict[str, np.ndarray]:
        """The state of what is seen when the event is drawn at these moments, one for each frame.

        Velocities are those seen: times the clock's own rate.
        """
        state = {
            name: values[moments] if values.ndim and len(values) == len(self.times) else values
            for name, values in self.state.items()
        }
        if "velocity" in state:
            rate = np.gradient(self.times[moments], self.stage.times)
            state["velocity"] = state["velocity"] * rate.reshape(-1, *[1] * (state["velocity"].ndim - 1))
        return state

    def tick(self, moment: int) -> float:
        """A clock for what flickers, eight ticks a second whatever the frame rate."""
        return float(self.times[moment] * _TICKS)


def kind_of(phenomenon: str, variant: str) -> type[Event]:
    """The event class of a scene.

    Raises:
        KeyError: no such scene.
    """
    for kind in EVENTS.get(phenomenon, ()):
        if kind.variant == variant:
            return kind
    raise KeyError(f"no scene {variant!r} shows {phenomenon}: see prophy.worlds.EVENTS")
