"""A GPU for the length of one generation, where the host lends one: Hugging Face's ZeroGPU."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from prophy.memory.peaks import ProfilePlan

P = ParamSpec("P")
T = TypeVar("T")

_START_SECONDS = 10  # until the lent GPU computes
_MARGIN = 1.5  # over the plan, which assumes half the speed of a good consumer card; the lent ones are faster


def on_gpu(
    stream: Callable[P, Generator[T, None, None]], duration: Callable[P, int]
) -> Callable[P, Generator[T, None, None]]:
    """Let a generator function run where a GPU is lent to it; anywhere else, return it as it is.

    ZeroGPU runs it in a forked process: its arguments and what it yields travel between processes, and an event set in
    this one is not seen there, so that closing the iterator is the way to stop it.

    Args:
        stream: the function.
        duration: from the same arguments, the seconds that the GPU is asked for; past them the host ends the work.
    """
    if not os.environ.get("SPACES_ZERO_GPU"):
        return stream
    import spaces  # the host's own package

    return spaces.GPU(duration=duration)(stream)


def gpu_seconds(planned: ProfilePlan, steps: int) -> int:
    """How long to ask for a GPU for a clip of so many denoising steps."""
    return math.ceil(_START_SECONDS + _MARGIN * planned.seconds(steps))
