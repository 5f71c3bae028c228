"""Trackers of dynamics."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from prophy.evaluation.judges.laws import TrackLost, backwards, flights, impact, inconstancy, oscillation, unsteady
from prophy.evaluation.judges.trackers.follow import LEAP, follow, moved
from prophy.evaluation.judges.trackers.register import Law, tracker
from prophy.evaluation.judges.trackers.view import View
from prophy.worlds.dynamics import PouringTap, SloshingTank
from prophy.worlds.stage import FLOOR

_CONTACT = 0.07  # seconds for which a bouncing ball is flattened, so that its middle does not fly freely


@tracker(
    "collision",
    "balls",
    Law("momentum", 0.15, "the sum of both momenta before"),
    Law("energy", 0.2, "the energy before, gains only"),
    Law("uniform motion", 0.05, "the distance travelled"),
    Law("size", 0.1, "the mean area"),
)
def _balls(view: View) -> dict[str, float]:
    balls = [follow(view, view.matte(which)) for which in range(2)]
    x = [ball.x_of_disc(view.region) for ball in balls]
    gap = np.abs(x[1] - x[0])
    contact = np.zeros(len(gap), bool)
    if np.isfinite(gap).any():
        contact[max(0, int(np.nanargmin(gap)) - view.apart) : int(np.nanargmin(gap)) + view.apart + 1] = True
    sizes = [np.where(contact, np.nan, ball.size) for ball in balls]
    first, second = (float(np.nanmedian(size)) for size in sizes)  # a disc's mass grows as its area
    result = impact(view.times, x[0], x[1], (first, second), view.apart - 1)
    return {
        "momentum": result.momentum_error,
        "energy": result.energy_gain,
        "uniform motion": result.unsteadiness,
        "size": max(inconstancy(size) for size in sizes),
    }


@tracker(
    "elastic_motion",
    "ball",
    Law("constant gravity", 0.03, "the height of the flight"),
    Law("no energy from nothing", 0.02, "the speed before the bounce"),
    Law("size", 0.1, "the mean area"),
)
def _bouncing(view: View) -> dict[str, float]:
    ball = follow(view, view.matte())
    y = ball.coordinate(1)
    moved(y, 4.0, "the ball's height")
    fall = flights(view.times, y, _CONTACT)
    if not fall.restitutions:
        raise TrackLost("the ball never bounces")
    return {
        "constant gravity": fall.residual / float(np.nanmax(y) - np.nanmin(y)),
        "no energy from nothing": max(0.0, max(fall.restitutions) - 1),
        "size": inconstancy(ball.size),
    }


@tracker(
    "elastic_motion",
    "spring",
    Law("one period", 0.05, "the amplitude"),
    Law("straight up and down", 0.05, "the amplitude"),
    Law("size", 0.1, "the mean area"),
)
def _spring(view: View) -> dict[str, float]:
    block = follow(view, view.matte())
    y = block.coordinate(1)
    moved(y, 4.0, "the block's height")
    swing = oscillation(view.times, y)
    return {
        "one period": swing.residual / swing.amplitude,
        "straight up and down": float(np.nanstd(block.coordinate(0))) / swing.amplitude,
        "size": inconstancy(block.size),
    }


@tracker(
    "liquid_motion",
    "slosh",
    Law("volume", 0.05, "the mean area"),
    Law("one period", 0.15, "the amplitude"),
)
def _sloshing(view: View) -> dict[str, float]:
    tank = SloshingTank.vessel(view.region)
    alpha = _liquid(view)[:, view.rows(0, FLOOR), view.between(tank.left + 1, tank.right - 1)]
    level_FW = alpha.sum(1) * view.pixel
    if np.median(level_FW) < 2:
        raise TrackLost("there is no liquid in the tank")
    across = np.linspace(-1, 1, level_FW.shape[1])
    tilt = level_FW @ (across - across.mean()) / np.square(across - across.mean()).sum()
    moved(tilt, 1.5, "the surface's tilt")
    swing = oscillation(view.times, tilt)
    return {"volume": inconstancy(level_FW.mean(1)), "one period": swing.residual / swing.amplitude}


@tracker(
    "liquid_motion",
    "pour",
    Law("never less", 0.05, "the rise"),
    Law("constant inflow", 0.05, "the rise"),
)
def _pouring(view: View) -> dict[str, float]:
    glass = PouringTap.vessel(view.region)
    aside = np.abs(view.columns - glass.centre)
    beside = (aside > 5.0) & (aside < glass.width / 2 - 1)  # the stream itself is higher than the level
    level = _liquid(view)[:, view.rows(0, FLOOR)][:, :, beside].mean(2).sum(1) * view.pixel
    moved(level, 3.0, "the level")
    low, high = level.min(), level.max()
    rising = (level > low + 0.7) & (level < high - 0.7)
    return {
        "never less": backwards(view.looks(level)),
        "constant inflow": unsteady(view.times, np.where(rising, level, np.nan), LEAP),
    }


def _liquid(view: View) -> np.ndarray:
    """The matte of a liquid, whose bright surface counts as it does."""
    alpha = view.matte(full=0.6)
    kernel = np.ones((view.odd(3), 1), np.uint8)
    return np.stack([cv2.morphologyEx(frame, cv2.MORPH_CLOSE, kernel) for frame in alpha])


@tracker(
    "gas_motion",
    "smoke",
    Law("moves upwards", 0.2, "the frames"),
    Law("leaves the chimney", 0.25, "the plume's height"),
)
def _smoke(view: View) -> dict[str, float]:
    alpha = view.matte(full=0.75)[:, view.rows(0, FLOOR - 16)]  # above the mouth
    mass = alpha.sum((1, 2)) * view.cell
    if np.median(mass) < 12:
        raise TrackLost("no smoke above the chimney")
    share = np.cumsum(alpha.sum(2)[:, ::-1], 1) * view.cell / np.maximum(mass, 1e-6)[:, None]  # from the mouth upwards
    front = (share < 0.95).sum(1) * view.pixel
    foot = (share < 0.05).sum(1) * view.pixel
    moved(front, 2.0, "the plume's height")
    return {
        "moves upwards": float(np.mean(_vertical_flow(view, alpha) >= 0)),
        "leaves the chimney": float(np.mean(foot) / np.mean(front)),
    }


def _vertical_flow(view: View, alpha_FHW: np.ndarray) -> np.ndarray:
    """Mean vertical motion of a density from look to look, pixels, weighted by the density."""
    pictures = (255 * alpha_FHW[:: view.apart]).astype(np.uint8)
    means = []
    for before, after in pairwise(pictures):
        flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 2, view.odd(11), 3, 5, 1.1, 0)
        means.append((flow[..., 1] * before).sum() / max(float(before.sum()), 1e-6))
    return np.array(means)


@tracker(
    "deformation",
    "press",
    Law("area", 0.06, "the mean area"),
    Law("only flatter", 0.1, "the whole flattening"),
    Law("only wider", 0.1, "the whole widening"),
)
def _press(view: View) -> dict[str, float]:
    clay = follow(view, view.matte(), gap=3)
    rows = view.matte().max(2)
    height = np.where(rows > 0.4, rows, 0).sum(1) * view.pixel
    moved(height, 3.0, "the clay's height")
    width = clay.area_F / np.maximum(height, 1)
    return {
        "area": inconstancy(clay.area_F),
        "only flatter": backwards(view.looks(-height)),
        "only wider": backwards(view.looks(width)),
    }


@tracker(
    "rigid_body_motion",
    "wheel",
    Law("uniform motion", 0.03, "the distance travelled"),
    Law("size", 0.1, "the mean area"),
)
def _wheel(view: View) -> dict[str, float]:
    wheel = follow(view, view.matte(full=0.4), gap=9)
    x = wheel.coordinate(0)
    moved(x, 4.0, "the wheel's place")
    return {"uniform motion": unsteady(view.times, x), "size": inconstancy(wheel.size)}


@tracker(
    "rigid_body_motion",
    "crate",
    Law("constant gravity", 0.05, "the height of the fall"),
    Law("size", 0.1, "the mean area"),
)
def _crate(view: View) -> dict[str, float]:
    crate = follow(view, view.matte())
    y = crate.coordinate(1)
    moved(y, 4.0, "the crate's height")
    half_diagonal = np.sqrt(np.nanmedian(crate.area_F) / 2)
    free = crate.position_F2[:, 1] + half_diagonal < FLOOR - 1  # a turning crate may touch from here on
    landed = np.flatnonzero(~free)
    flight = np.where(np.arange(len(y)) < (landed[0] if len(landed) else len(y)), y, np.nan)
    fall = flights(view.times, flight)
    return {
        "constant gravity": fall.residual / float(np.nanmax(flight) - np.nanmin(flight)),
        "size": inconstancy(crate.size),
    }
