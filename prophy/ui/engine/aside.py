"""Processes beside the app's own, for work that no generation is to wait for (no gradio, no torch)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from threading import Lock, Thread
from typing import ParamSpec, TypeVar

from prophy.ui.engine.errors import EngineError

P = ParamSpec("P")
T = TypeVar("T")

_NICENESS = 10  # a tenth of the weight of another process: more would starve it on a busy machine


class Aside:
    """Processes that let others compute first. Each starts when there is work and none is free, and stays.

    Threads would not do: beside a generation they hold Python's lock in turn with it, all the longer where the system
    gives them little of a core.

    Args:
        most: how many of them.
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, Lock()
        self._pool: ProcessPoolExecutor | None = None

    def do(self, work: Callable[P, T], *asked: P.args, **named: P.kwargs) -> T:
        """Work in one of them.

        Args:
            work: importable by its name.
            asked, named: its arguments, which travel, as what it returns does.

        Raises:
            EngineError: the process ended before the work did, and the next work has a new one; or the arguments do not
                travel, nested as they are.
            Exception: whatever the work raises.
        """
        with self._lock:
            if self._pool is None:
                # not forked: this process has threads, which may hold locks at that moment
                self._pool = ProcessPoolExecutor(self._most, get_context("spawn"), _begin)
            pool = self._pool
        try:
            return pool.submit(work, *asked, **named).result()
        except RecursionError:
            raise EngineError("the request is nested too deeply") from None
        except BrokenProcessPool:
            with self._lock:
                if self._pool is pool:
                    self._pool = None
            raise EngineError("this ended before it was done: ask again") from None


def _begin() -> None:
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at a terminal it reaches all: the app ends this
    Thread(target=_end_with_the_app, daemon=True).start()


def _end_with_the_app() -> None:
    """Of an app that is killed, nobody else tells."""
    if (app := parent_process()) is not None:
        app.join()
    os._exit(1)
