"""Things of which one address, and all of them together, may have only so many at once (no gradio)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Counted:
    """Of one thread, such as a server's event loop.

    Args:
        each: how many one address may have; those without an address are counted with all only.
        total: how many all may have.
    """

    def __init__(self, each: int, total: int) -> None:
        self._each, self._total = each, total
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._taken.total()

    @contextmanager
    def one(self, address: str) -> Iterator[bool]:
        """One more inside the block; False, and it is not counted, where there are too many."""
        if (address and self._taken[address] >= self._each) or len(self) >= self._total:
            self._taken += Counter()  # looking made an entry
            yield False
            return
        self._taken[address] += 1
        try:
            yield True
        finally:
            self._taken[address] -= 1
            self._taken += Counter()  # forgets addresses with none
