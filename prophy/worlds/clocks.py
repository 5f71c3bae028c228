"""Clocks that obey no law: each frame of an event that runs by one is possible, its motion from frame to frame is not.

A clip whose events each run by a clock of their own teaches what things look like and nothing of how they move: from
such clips the embedded model's backbone learns looks, and its branch the laws. Ours; the paper has no counterpart.

Three kinds: one that stands still, one that runs backwards, and one that wanders: its rate follows an
Ornstein-Uhlenbeck process about zero, and it turns round at both ends. Time constants are seconds: the same at every
frame rate.
"""

from __future__ import annotations

import numpy as np

from prophy.worlds.stage import Stage

FINER = 4  #: moments simulated for each frame, so that a clock may stand between two frames
FROZEN, REVERSED = 0.12, 0.18  #: shares of the clocks that stand still and that run backwards; the others wander
INERTIA = 0.43  #: seconds after which a wandering clock has forgotten its rate
PACE = 1.66  #: standard deviation of its rate, seconds a second: fast enough to leave every law within a clip


def fine_times(stage: Stage) -> np.ndarray:
    """Seconds at which an event must be simulated for a clock to choose from, ``(T,)``."""
    return np.arange(FINER * (stage.frames - 1) + 1) / (FINER * stage.fps)


def unlawful_clock(stage: Stage, rng: np.random.Generator) -> np.ndarray:
    """What a clock shows at each frame, as rows of :func:`fine_times`, int ``(F,)``."""
    last, kind = FINER * (stage.frames - 1), rng.random()
    if kind < FROZEN:
        return np.full(stage.frames, rng.integers(last + 1))
    if kind < FROZEN + REVERSED:
        return np.arange(last, -1, -FINER)
    apart = 1 / (FINER * stage.fps)
    kept = np.exp(-apart / INERTIA)
    shown, rate = rng.uniform(0, stage.duration), rng.normal(0, PACE)
    rows = np.empty(last + 1)
    for row, push in enumerate(rng.normal(0, PACE * np.sqrt(1 - kept**2), last + 1)):
        rows[row] = shown / apart
        rate = kept * rate + push
        shown += rate * apart
        if not 0 <= shown <= stage.duration:  # it turns round
            shown, rate = np.clip(-shown if shown < 0 else 2 * stage.duration - shown, 0, stage.duration), -rate
    return np.round(rows[::FINER]).astype(int)
