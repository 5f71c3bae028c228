"""Law errors: pure functions of what was tracked. 0 is lawful, 1 is as wrong as counts; a lost track counts as 1.

Lengths are stage units with y pointing down, times are seconds, angles are radians.

Shapes: F frames; NaN marks a frame in which the object was not seen, was in contact, or left the canvas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

LEAST = 3  #: frames that a straight line is fitted to, at least
REST = 3.0  #: a ball that, after three bounces, rises no more than this has come to rest


class TrackLost(Exception):
    """What the prompt asks for cannot be followed, or does not happen. One line that says what was missing."""


@dataclass(frozen=True)
class Line:
    """A straight line fitted to a coordinate: its slope per second, and the residual, root mean square."""

    slope: float
    residual: float


@dataclass(frozen=True)
class Flights:
    """Free flights that share one acceleration.

    Attributes:
        acceleration: units per second squared, positive downwards.
        residual: of the fit, units, root mean square.
        restitutions: for each bounce, speed after over speed before.
    """

    acceleration: float
    residual: float
    restitutions: tuple[float, ...]


@dataclass(frozen=True)
class Oscillation:
    """A sine fitted to a coordinate: period in seconds, amplitude and residual (root mean square) in its own unit."""

    period: float
    amplitude: float
    residual: float


@dataclass(frozen=True)
class Impact:
    """Two bodies before and after they meet, along the line of their motion.

    Attributes:
        momentum_error: change of the momentum over the sum of the bodies' momenta, without their signs, before.
        energy_gain: kinetic energy after over before, minus 1; not below 0.
        restitution: relative speed after over before.
        unsteadiness: residual of the straight lines before and after over the distance travelled.
    """

    momentum_error: float
    energy_gain: float
    restitution: float
    unsteadiness: float


def capped(error: float) -> float:
    """An error as it is counted: 0 to 1; not a number is 1."""
    return float(min(1.0, error)) if np.isfinite(error) else 1.0


def line(times_F: np.ndarray, x_F: np.ndarray) -> Line:
    """Least squares over the frames that are seen.

    Raises:
        TrackLost: fewer than :data:`LEAST` of them.
    """
    seen = np.isfinite(x_F)
    if seen.sum() < LEAST:
        raise TrackLost(f"seen in {int(seen.sum())} frames, {LEAST} are needed")
    slope, offset = np.polyfit(times_F[seen], x_F[seen], 1)
    return Line(float(slope), _rms(x_F[seen] - slope * times_F[seen] - offset))


def flights(times_F: np.ndarray, y_F: np.ndarray, contact: float = 0.0) -> Flights:
    """Fit parabolas of one acceleration to the flights between bounces.

    A bounce is where the fall turns into a rise; its lowest frame is contact and is dropped, and so are those nearer to
    it than ``contact`` seconds.

    Raises:
        TrackLost: no flight of three frames, too few frames in all, or nothing that falls.
    """
    parts = _between_bounces(y_F, max(0, math.ceil(contact / (times_F[1] - times_F[0]) - 1e-6) - 1))
    parts = [part for part in parts if len(part) >= 2]
    if not parts or max(len(part) for part in parts) < 3 or sum(len(part) for part in parts) < len(parts) * 2 + 2:
        raise TrackLost("no flight is long enough")
    rows, target = [], []
    for column, part in enumerate(parts):
        for frame in part:
            row = np.zeros(1 + 2 * len(parts))
            row[0] = 0.5 * times_F[frame] ** 2
            row[1 + 2 * column : 3 + 2 * column] = times_F[frame], 1
            rows.append(row)
            target.append(y_F[frame])
    matrix, wanted = np.array(rows), np.array(target)
    solution = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    residual = _rms(matrix @ solution - wanted)
    acceleration = float(solution[0])
    if acceleration <= 0:
        raise TrackLost("nothing falls")
    return Flights(acceleration, residual, _restitutions(acceleration, solution[1:].reshape(-1, 2)))


def oscillation(times_F: np.ndarray, x_F: np.ndarray, shortest: float = 0.3, longest: float = 3.0) -> Oscillation:
    """The best sine of any period between ``shortest`` and ``longest`` seconds.

    Raises:
        TrackLost: fewer than seven frames.
    """
    seen = np.isfinite(x_F)
    if seen.sum() < 7:
        raise TrackLost("seen too seldom to swing")
    times, x = times_F[seen], x_F[seen]

    def fitted(frequency: float) -> tuple[float, float]:
        turn = 2 * np.pi * frequency * times
        matrix = np.stack([np.cos(turn), np.sin(turn), np.ones_like(turn)], 1)
        solution = np.linalg.lstsq(matrix, x, rcond=None)[0]
        return _rms(matrix @ solution - x), float(np.hypot(solution[0], solution[1]))

    frequencies = np.linspace(1 / longest, 1 / shortest, 240)
    best = frequencies[int(np.argmin([fitted(f)[0] for f in frequencies]))]
    fine = np.linspace(best - 0.02, best + 0.02, 41)
    best = fine[int(np.argmin([fitted(f)[0] for f in fine]))]
    residual, amplitude = fitted(best)
    return Oscillation(float(1 / best), amplitude, residual)


def impact(
    times_F: np.ndarray, first_F: np.ndarray, second_F: np.ndarray, masses: tuple[float, float], contact: int = 1
) -> Impact:
    """Momentum and energy of two bodies on a line, before and after they are closest.

    Args:
        times_F: seconds.
        first_F: where the one is.
        second_F: where the other is.
        masses: of both, in any unit.
        contact: frames on either side of the closest one that are left out.

    Raises:
        TrackLost: they do not meet, do not part, or are not seen long enough on both sides of it.
    """
    gap = np.abs(second_F - first_F)
    if not np.isfinite(gap).any():
        raise TrackLost("the two are never seen together")
    closest = int(np.nanargmin(gap))
    if closest <= LEAST:
        raise TrackLost("the two do not approach each other long enough to be measured")
    since = np.arange(len(gap)) - closest
    lines = [
        [line(times_F, np.where(side, x, np.nan)) for x in (first_F, second_F)]
        for side in (since < -contact, since > contact)
    ]
    speeds = np.array([[one.slope for one in side] for side in lines])
    mass = np.asarray(masses, float)
    closing, parting = speeds[0, 0] - speeds[0, 1], speeds[1, 1] - speeds[1, 0]
    toward = np.sign(second_F[np.isfinite(gap)][0] - first_F[np.isfinite(gap)][0])
    if closing * toward <= 1.0:
        raise TrackLost("the two do not approach each other")
    momentum = speeds @ mass
    energy = speeds**2 @ mass / 2
    travelled = np.nanmax(first_F) - np.nanmin(first_F) + np.nanmax(second_F) - np.nanmin(second_F)
    return Impact(
        momentum_error=float(abs(momentum[1] - momentum[0]) / (np.abs(speeds[0]) @ mass)),
        energy_gain=float(max(0.0, energy[1] / energy[0] - 1)),
        restitution=float(parting / closing),
        unsteadiness=float(np.mean([one.residual for side in lines for one in side]) / (travelled / 2)),
    )


def backwards(values_F: np.ndarray) -> float:
    """How far a quantity that should only grow goes back, over its whole range: 0 monotone, 1 back to where it began.

    Raises:
        TrackLost: fewer than three frames.
    """
    values = values_F[np.isfinite(values_F)]
    if len(values) < LEAST:
        raise TrackLost(f"measured in {len(values)} frames, {LEAST} are needed")
    spread = values.max() - values.min()
    return float(np.maximum(-np.diff(values), 0).sum() / spread) if spread > 0 else 1.0


def inconstancy(values_F: np.ndarray) -> float:
    """Standard deviation over the mean of a quantity that should not change.

    Raises:
        TrackLost: fewer than three frames.
    """
    values = values_F[np.isfinite(values_F)]
    if len(values) < LEAST:
        raise TrackLost(f"measured in {len(values)} frames, {LEAST} are needed")
    return float(values.std() / abs(values.mean()))


def unsteady(times_F: np.ndarray, values_F: np.ndarray, leap: float = np.inf) -> float:
    """Residual of a straight line over the range: of a quantity that should grow at a constant rate.

    Args:
        times_F: seconds.
        values_F: the quantity.
        leap: one single fall of more than this from one frame to the next is another matter (see :func:`backwards`):
            after it a line of the same slope begins anew.

    Raises:
        TrackLost: fewer than :data:`LEAST` frames, or no change.
    """
    spread = np.nanmax(values_F) - np.nanmin(values_F) if np.isfinite(values_F).any() else 0
    if spread == 0:
        raise TrackLost("nothing changes")
    seen = np.isfinite(values_F)
    times, values = times_F[seen], values_F[seen]
    falls = np.flatnonzero(np.diff(values) < -leap) + 1
    if len(falls) == 1:
        times, values = (
            np.concatenate([part - part.mean() for part in np.split(series, falls)]) for series in (times, values)
        )
    return line(times, values).residual / float(spread)


def speeding_up(values_F: np.ndarray) -> float:
    """How much a growth that should slow down speeds up: the rises of its increments over its largest increment.

    Raises:
        TrackLost: fewer than four frames, or no growth.
    """
    values = values_F[np.isfinite(values_F)]
    steps = np.diff(values)
    if len(steps) < LEAST or steps.max() <= 0:
        raise TrackLost("nothing grows")
    return float(np.maximum(np.diff(steps), 0).max() / steps.max())


def outside(value: float, low: float, high: float) -> float:
    """How far a value lies outside a range, relative to the nearer end; 0 inside."""
    return float(max(low / value - 1 if value > 0 else np.inf, value / high - 1, 0.0))


def _between_bounces(y_F: np.ndarray, contact: int) -> list[list[int]]:
    """Frames of each flight: cut at every local maximum of y (the lowest point), which is left out with its neighbours.

    So is a last frame that comes as low as the contact, or would have on the way it was falling: whether it is before
    or after a bounce cannot be told. So are, after the third bounce, the flights of a ball that has all but come to
    rest: they last too few frames.
    """
    y_F = np.array(y_F, np.float64)
    if len(y_F) > 2 and np.isfinite(y_F[-3:]).all():
        lowest, (before, at, last) = np.nanmax(y_F), y_F[-3:]
        if last > at and (last >= lowest - (last - at) or at + (at - before) >= lowest):
            y_F[-1] = np.nan
    seen = np.isfinite(y_F)
    bounces = [
        frame
        for frame in range(1, len(y_F) - 1)
        if seen[frame - 1 : frame + 2].all() and y_F[frame] >= y_F[frame - 1] and y_F[frame] > y_F[frame + 1]
    ]
    flying = seen.copy()
    for count, frame in enumerate(bounces, 1):
        flying[max(0, frame - contact) : frame + contact + 1] = False
        if count >= 3 and np.nanmax(y_F[frame:]) - np.nanmin(y_F[frame:]) < REST:
            flying[frame:] = False
            break
    parts: list[list[int]] = [[]]
    for frame in range(len(y_F)):
        if flying[frame]:
            parts[-1].append(frame)
        else:
            parts.append([])
    return [part for part in parts if part]


def _restitutions(acceleration: float, straight: np.ndarray) -> tuple[float, ...]:
    """Speeds after over before at the crossings of neighbouring parabolas, whose straight parts are (slope, offset)."""
    ratios = []
    for (slope, offset), (next_slope, next_offset) in pairwise(straight):
        if slope == next_slope:
            continue
        at = (next_offset - offset) / (slope - next_slope)
        before, after = slope + acceleration * at, next_slope + acceleration * at
        if before > 0:
            ratios.append(float(-after / before))
    return tuple(ratios)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
