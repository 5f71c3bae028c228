"""Work that visitors may ask for in parallel, a little of it at a time (no gradio)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

from prophy.ui.engine.errors import EngineError

_PATIENCE_SECONDS = 60.0


class Slots:
    """At most ``running`` at once; a few more wait, and the rest are refused.

    Args:
        what: in words, for the refusal, such as ``exports``.
        running: how many are worked on at once.
        waiting: how many more may wait.
        each: how many of these one visitor may have.
    """

    def __init__(self, what: str, *, running: int, waiting: int, each: int) -> None:
        self._what, self._most, self._each = what, running + waiting, each
        self._free = BoundedSemaphore(running)
        self._taken: Counter[str] = Counter()
        self._lock = Lock()

    @contextmanager
    def taken(self, visitor: str = "") -> Iterator[None]:
        """Wait for a slot and hold it.

        Args:
            visitor: whose it is; empty where nothing is known, so that only the whole is counted.

        Raises:
            EngineError: too many are waiting, or too many of this visitor's.
        """
        with self._lock:
            if visitor and self._taken[visitor] >= self._each:
                raise EngineError(f"{self._each} {self._what} of yours are under way: let one finish")
            if self._taken.total() >= self._most:
                raise EngineError(f"too many {self._what} at once: try again in a moment")
            self._taken[visitor] += 1
        try:
            if not self._free.acquire(timeout=_PATIENCE_SECONDS):
                raise EngineError(f"the {self._what} before this one take too long: try again later")
            try:
                yield
            finally:
                self._free.release()
        finally:
            with self._lock:
                self._taken[visitor] -= 1
                self._taken += Counter()  # forgets visitors with none
