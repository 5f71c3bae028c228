"""Which pages and programs still listen (no gradio)."""

from __future__ import annotations

import time
from collections import Counter
from threading import Lock

GRACE_SECONDS = 10.0  #: without a listener, after which nobody is thought to come back
_MOST_REMEMBERED = 10_000  # sessions without a connection; the one that left first is forgotten first


class Presence:
    """Counts the open connections of every session.

    Until ``is_watched`` is set nobody tells who comes and goes, and everybody counts as here.
    """

    def __init__(self) -> None:
        self.is_watched = False
        self._open: Counter[str] = Counter()
        self._last: dict[str, float] = {}  # of sessions without a connection, in this order, when they had one
        self._lock = Lock()

    def came(self, session: str) -> None:
        """A connection was opened."""
        with self._lock:
            self._open[session] += 1
            self._last.pop(session, None)

    def went(self, session: str) -> None:
        """A connection was closed."""
        with self._lock:
            self._open[session] -= 1
            if self._open[session] <= 0:
                del self._open[session]
                self._remember(session)

    def is_here(self, session: str, grace: float | None = None) -> bool:
        """Whether a session listens, or did a moment ago; who never did has that moment from the first question on.

        Args:
            session: of a page or program.
            grace: how long the moment is, in seconds; None: :data:`GRACE_SECONDS`.
        """
        if not self.is_watched:
            return True
        with self._lock:
            if session in self._open:
                return True
            if session not in self._last:
                self._remember(session)
            return time.monotonic() - self._last[session] < (GRACE_SECONDS if grace is None else grace)

    def listens(self, session: str) -> bool:
        """Whether a session has a connection at this moment, as far as anybody tells."""
        with self._lock:
            return not self.is_watched or session in self._open

    def _remember(self, session: str) -> None:
        now = time.monotonic()
        self._last[session] = now
        for first in list(self._last)[:2]:
            if len(self._last) > _MOST_REMEMBERED or now - self._last[first] > 100 * GRACE_SECONDS:
                del self._last[first]
