"""What one address, and all of them together, may have only so much of, at once or a second (no gradio)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager


class Counted:
    """Of one thread, such as a server's event loop.

    Args:
        each: how many one address may have, or how much of it; without an address only the total counts.
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
        with self.growing(address) as more:
            yield more(1)

    @contextmanager
    def growing(self, address: str) -> Iterator[Callable[[int], bool]]:
        """What asks for so many more, until the end of the block; False, and not counted, where that is too many."""
        own = 0

        def more(amount: int) -> bool:
            nonlocal own
            if len(self) + amount > self._total or (address and self._taken.get(address, 0) + amount > self._each):
                return False
            self._taken[address] += amount
            own += amount
            return True

        try:
            yield more
        finally:
            self._taken[address] -= own
            self._taken += Counter()  # forgets addresses with none


class Turns:
    """Work that is short: of one address so many at once, whose others wait. Of one event loop.

    Args:
        each: how many of one address; without an address none waits.
    """

    def __init__(self, each: int) -> None:
        self._each = each
        self._free: dict[str, asyncio.Semaphore] = {}
        self._wanted: Counter[str] = Counter()

    @asynccontextmanager
    async def one(self, address: str) -> AsyncIterator[None]:
        """Wait until fewer of this address are inside the block."""
        if not address:
            yield
            return
        self._wanted[address] += 1
        try:
            async with self._free.setdefault(address, asyncio.Semaphore(self._each)):
                yield
        finally:
            self._wanted[address] -= 1
            if not self._wanted[address]:
                del self._wanted[address], self._free[address]


class Pace:
    """What one address may begin only so often, after a few at once; the rest waits (the generic cell rate algorithm of
    ITU-T I.371, in its virtual scheduling form). Of one event loop.

    Args:
        at_once: how many before any waits.
        a_second: how many from then on; without an address none waits.
        patience: seconds that one may have to wait.
    """

    def __init__(self, at_once: int, a_second: float, patience: float) -> None:
        self._at_once, self._a_second, self._patience = at_once, a_second, patience
        self._due: dict[str, float] = {}  # by address, when the next would come at an even pace

    async def one(self, address: str) -> bool:
        """Wait until this address may begin one more; at once False, and it is not counted, where that is too long."""
        if not address:
            return True
        now = time.monotonic()
        self._due = {other: due for other, due in self._due.items() if due > now}
        due = self._due.get(address, now)
        wait = due - now - (self._at_once - 1) / self._a_second
        if wait > self._patience:
            return False
        self._due[address] = due + 1 / self._a_second
        await asyncio.sleep(max(0.0, wait))
        return True
