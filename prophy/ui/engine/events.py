"""What happens in a generation, and who hears of it (no torch, no gradio)."""

from __future__ import annotations

from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock
from typing import Any

from prophy.runs.store import Run


@dataclass(frozen=True)
class Opening:
    """The model is being opened: the first time, or after another one."""

    model: str


@dataclass(frozen=True)
class Started:
    """Denoising begins.

    Attributes:
        steps: denoising steps to come.
        unknown_words: words of the prompt that the model has never seen.
    """

    steps: int
    unknown_words: tuple[str, ...]


@dataclass(frozen=True)
class Finished:
    """The run is on disk."""

    run: Run


class Events:
    """The events of one job. Whoever begins to listen late hears the last one of each kind first."""

    def __init__(self) -> None:
        self._listeners: list[SimpleQueue[Any]] = []
        self._last: dict[type, Any] = {}
        self._lock = Lock()

    def put(self, event: Any) -> None:
        """Tell everybody who listens, and who will."""
        with self._lock:
            self._last.pop(type(event), None)  # to the end of the order
            self._last[type(event)] = event
            for listener in self._listeners:
                listener.put(event)

    def listen(self) -> SimpleQueue[Any]:
        """A queue of what happens from now on, after what is known already."""
        with self._lock:
            listener: SimpleQueue[Any] = SimpleQueue()
            for event in self._last.values():
                listener.put(event)
            self._listeners.append(listener)
            return listener

    def forget(self, listener: SimpleQueue[Any]) -> None:
        """Tell this one no more."""
        with self._lock:
            self._listeners.remove(listener)
