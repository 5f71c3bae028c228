"""How far a training is, and when it has to stop."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass

_LEARNING = 50  # steps in which a loss may still jump
_FOLLOW = 0.98  # share of the running mean of the loss that a step keeps


class TrainingStopped(ValueError):
    """The training cannot go on; the last checkpoint is whole. One line."""


@dataclass
class Progress:
    """What changes from step to step besides weights.

    Attributes:
        step: updates made.
        mean_loss: running mean of the loss.
        waited: seconds without data, since the log was last written.
    """

    step: int = 0
    mean_loss: float = 0.0
    waited: float = 0.0

    def advance(self, loss: float) -> None:
        """Count a step."""
        self.step += 1
        self.mean_loss = loss if self.step == 1 else _FOLLOW * self.mean_loss + (1 - _FOLLOW) * loss

    def fault(self, loss: float, norm: float, explosion: float) -> str | None:
        """Why a step with this loss and norm of the gradient would spoil the weights; None if it would not.

        Args:
            explosion: a loss this many times its running mean is one.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"the loss is {loss:g} and its gradient's norm {norm:g}"
        if self.step >= _LEARNING and loss > explosion * self.mean_loss:
            return f"the loss is {loss:g}, over {explosion:g} times its running mean {self.mean_loss:g}"
        return None


class Stop:
    """A time limit, and SIGTERM, which clusters send before they take a machine: both end with a checkpoint.

    Args:
        minutes: from now; None: no limit.
    """

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._told = False

    def __enter__(self) -> Stop:
        self._before = signal.signal(signal.SIGTERM, self._tell)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _tell(self, *_: object) -> None:
        self._told = True

    @property
    def due(self) -> bool:
        """Whether this process was told to stop, or is out of time."""
        return self._told or (self._end is not None and time.monotonic() >= self._end)
