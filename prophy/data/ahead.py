"""Clips that other processes render while the ones before them are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Made = TypeVar("Made")


def made_ahead(make: Callable[[Task], Made], tasks: Iterable[Task], workers: int, ahead: int = 16) -> Iterator[Made]:
    """What ``make`` gives for each task, in order, made by other processes.

    Args:
        make: importable by its name.
        tasks: one after the other.
        workers: processes.
        ahead: results per process that may wait to be used; a clip of 832×480×81 takes 97 MB.
    """
    with ProcessPoolExecutor(workers) as executor:
        waiting: deque[Future[Made]] = deque()
        for task in tasks:
            waiting.append(executor.submit(make, task))
            if len(waiting) == ahead * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
