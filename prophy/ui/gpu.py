"""A GPU for the length of one generation, where the host lends one: Hugging Face's ZeroGPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST_SECONDS = 120  # that a generation may hold the GPU


def on_gpu(stream: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
    """Let a generator function run where a GPU is lent to it; anywhere else, return it as it is.

    ZeroGPU runs it in a forked process: its arguments and what it yields travel between processes, and an event set in
    this one is not seen there, so that closing the iterator is the way to stop it.
    """
    if not os.environ.get("SPACES_ZERO_GPU"):
        return stream
    import spaces  # the host's own package

    return spaces.GPU(duration=_LONGEST_SECONDS)(stream)
