"""A GPU for the length of one generation, where the host lends one: Hugging Face's ZeroGPU.

There the page's process has no GPU. Weights that its main thread puts on ``cuda`` before the page is served are kept
for the processes that get one; what is put there later, or from another thread, fails. Each generation runs in such a
process, which may serve several: all that it knows is what stood when it began.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from prophy.ui.engine.errors import EngineError, for_visitors

if TYPE_CHECKING:
    from prophy.memory.peaks import ProfilePlan

P = ParamSpec("P")
T = TypeVar("T")

VISITOR_SECONDS = 120  #: of a GPU that a visitor without an account has a day, by the host's documentation
_START_SECONDS = 10  # until the lent GPU computes
_MARGIN = 1.5  # over the plan, which assumes half the speed of a good consumer card; the lent ones are faster


@dataclass(frozen=True)
class _Refused:
    """What the work raised for the person who asked: of an error the host hands over no more than its class."""

    message: str


def is_lent() -> bool:
    """Whether the host lends a GPU for single calls."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def on_gpu(
    stream: Callable[P, Generator[T, None, None]], duration: Callable[P, int]
) -> Callable[P, Generator[T, None, None]]:
    """Let a generator function run where a GPU is lent to it; anywhere else, return it as it is.

    Its arguments and what it yields travel between processes, and an event set in this one is not seen there, so that
    closing the iterator is the way to stop it. The host finds the visitor whose quota it counts in the context that the
    iterator runs in.

    Args:
        stream: the function.
        duration: from the same arguments, the seconds that the GPU is asked for; past them the host ends the work.

    Raises:
        EngineError: while iterating: the work cannot be done, or no GPU is lent; one line.
    """
    if not is_lent():
        return stream
    import spaces  # the host's own package

    def work(*args: P.args, **named: P.kwargs) -> Generator[T | _Refused, None, None]:
        try:
            yield from stream(*args, **named)
        except ValueError as error:
            yield _Refused(for_visitors(error))

    lent = spaces.GPU(duration=duration)(work)

    def borrowed(*args: P.args, **named: P.kwargs) -> Generator[T, None, None]:
        try:
            with closing(lent(*args, **named)) as events:
                for event in events:
                    if isinstance(event, _Refused):
                        raise EngineError(event.message)
                    yield event
        except EngineError:
            raise
        except Exception as error:  # gradio's own, whose message says what the host does of quota and waiting
            said = getattr(error, "message", error)
            raise EngineError(f"no GPU did this: {for_visitors(said)}") from error

    return borrowed


def gpu_seconds(planned: ProfilePlan, steps: int) -> int:
    """How long to ask for a GPU for a clip of so many denoising steps."""
    return math.ceil(_START_SECONDS + _MARGIN * planned.seconds(steps))
