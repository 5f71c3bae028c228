"""Which pages and programs still listen (no gradio)."""

from __future__ import annotations

import time
from collections import Counter
from threading import Lock

GRACE_SECONDS = 10.0  #: without a listener, after which nobody is thought to come back


class Presence:
    """Counts the open connections of every session.

    Until ``is_watched`` is set nobody tells who comes and goes, and everybody counts as here.
    """

    def __init__(self) -> None:
        self.is_watched = False
        self._open: Counter[str] = Counter()
        self._last: dict[str, float] = {}  # of sessions without a connection, when they had one
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
                self._last[session] = time.monotonic()
            self._forget()

    def is_here(self, session: str) -> bool:
        """Whether a session listens, or did a moment ago; who never did has that moment from the first question on."""
        if not self.is_watched:
            return True
        with self._lock:
            if session in self._open:
                return True
            now = time.monotonic()
            return now - self._last.setdefault(session, now) < GRACE_SECONDS

    def listens(self, session: str) -> bool:
        """Whether a session has a connection at this moment, as far as anybody tells."""
        with self._lock:
            return not self.is_watched or session in self._open

    def _forget(self) -> None:
        limit = time.monotonic() - 100 * GRACE_SECONDS
        self._last = {session: when for session, when in self._last.items() if when > limit}
