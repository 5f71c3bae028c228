"""Trackers of thermodynamics."""

from __future__ import annotations

import cv2
import numpy as np

from prophy.evaluation.judges.laws import TrackLost, backwards, inconstancy, speeding_up, unsteady
from prophy.evaluation.judges.trackers.follow import LEAP, LEAST_AREA, moved
from prophy.evaluation.judges.trackers.register import Law, tracker
from prophy.evaluation.judges.trackers.view import View
from prophy.worlds.stage import FLOOR
from prophy.worlds.thermodynamics import BoilingPot, FreezingTank


@tracker(
    "melting",
    "block",
    Law("the solid only shrinks", 0.05, "the whole loss"),
    Law("the puddle only grows", 0.1, "the whole growth"),
)
def _melting(view: View) -> dict[str, float]:
    alpha = view.matte()
    solid = alpha[:, view.rows(0, FLOOR - 1)].sum((1, 2)) * view.cell
    if solid[0] < LEAST_AREA:
        raise TrackLost("there is no block")
    moved(solid / solid.max(), 0.2, "the block's area, as a share,")
    puddle = alpha[:, view.rows(FLOOR - 1, FLOOR + 4)].max(1).sum(1) * view.pixel_across
    moved(puddle, 2.0, "the puddle's width")
    return {
        "the solid only shrinks": backwards(view.looks(-solid)),
        "the puddle only grows": backwards(view.looks(puddle)),
    }


@tracker("solidification", "freeze", Law("the front only advances", 0.05, "the whole advance"))
def _freezing(view: View) -> dict[str, float]:
    tank = FreezingTank.vessel(view.region)
    columns = view.between(tank.left + 1, tank.right - 1)
    liquid = view.matte(full=0.7)[:, view.rows(0, FLOOR), columns].mean(2).sum(1) * view.pixel
    moved(liquid, 4.0, "the liquid")
    return {"the front only advances": backwards(view.looks(-liquid))}


@tracker(
    "vaporization",
    "boil",
    Law("the level only sinks", 0.2, "the whole loss"),
    Law("constant rate", 0.06, "the whole loss"),
)
def _boiling(view: View) -> dict[str, float]:
    pot = BoilingPot.vessel(view.region)
    alpha = view.matte(full=0.6)[:, view.rows(0, FLOOR - 4), view.between(pot.left + 1, pot.right - 1)]
    level = np.array([_fill_height(frame) for frame in alpha]) * view.pixel
    moved(level, 2.0, "the level")
    return {"the level only sinks": backwards(view.looks(-level)), "constant rate": unsteady(view.times, -level, LEAP)}


def _fill_height(alpha_HW: np.ndarray) -> float:
    """Rows of liquid beneath its surface: of each column the highest covered row, whatever bubbles are below."""
    covered = np.maximum.accumulate(np.where(alpha_HW < 0.4, 0, alpha_HW), axis=0)
    return float(np.percentile(covered.sum(0), 75))


@tracker("liquefaction", "condense", Law("drops only grow", 0.12, "the whole growth"))
def _condensing(view: View) -> dict[str, float]:
    alpha = view.matte()
    area = alpha[:, view.rows(14, FLOOR)].sum((1, 2)) * view.cell
    moved(area, 8.0, "the drops' area")
    falling = alpha[:, view.rows(26, FLOOR)].sum((1, 2)) * view.cell > 0.1 * np.maximum(area, 1)
    hanging = np.arange(len(area)) < (np.flatnonzero(falling)[0] if falling.any() else len(area))
    return {"drops only grow": backwards(view.looks(np.where(hanging, area, np.nan)))}


@tracker(
    "combustion",
    "candle",
    Law("stays lit", 0.0, "the frames"),
    Law("the wax only sinks", 0.3, "the whole loss"),
)
def _candle(view: View) -> dict[str, float]:
    half = 4.5 * view.region.scale
    columns = view.between(view.region.centre - half, view.region.centre + half)
    frames = view.frames_FHWC[:, :, columns]
    foot = np.median(frames[:, view.rows(FLOOR - 7, FLOOR - 3)], axis=(0, 1))
    wall = view.backdrop_HWC[:, columns]
    contrast = np.linalg.norm(foot - wall[view.rows(FLOOR - 5, FLOOR - 4)][0], axis=-1).mean()
    if contrast < 25:
        raise TrackLost("there is no candle")
    unlike = np.linalg.norm(frames - foot, axis=-1).mean(2) / contrast  # 0 inside the wax
    wax = np.clip(1.6 - 3 * unlike[:, view.rows(0, FLOOR - 3)][:, ::-1], 0, 1)
    height = np.array([_run_of(row) for row in wax]) * view.pixel + 3
    if np.median(height) < 5:
        raise TrackLost("there is no candle")
    moved(height, 0.8, "the candle's height")
    flame = _flame(view)
    tops = FLOOR - height - 2  # clear of the wax, which may have a flame's colours
    lit = [flame[f, view.rows(top - 12, top)].sum() * view.cell > 4 for f, top in enumerate(tops)]
    return {"stays lit": float(1 - np.mean(lit)), "the wax only sinks": backwards(view.looks(-height))}


def _run_of(values: np.ndarray) -> float:
    """Length of the run of ones at the beginning, with what the first lower value adds."""
    total = 0.0
    for value in values:
        total += float(value)
        if value < 0.6:
            break
    return total


@tracker("combustion", "logs", Law("stays lit", 0.0, "the frames"), Law("burns steadily", 0.5, "the mean area"))
def _logs(view: View) -> dict[str, float]:
    area = _flame(view)[:, view.rows(0, FLOOR - 4)].sum((1, 2)) * view.cell
    if np.median(area) < 20:
        raise TrackLost("there is no flame")
    return {"stays lit": float((area < 0.25 * np.median(area)).mean()), "burns steadily": inconstancy(area)}


def _flame(view: View) -> np.ndarray:
    """Where something glows yellow to red and differs from the wall, bool ``(F, H, W)``."""
    red, green, blue = np.moveaxis(view.frames_FHWC, -1, 0)
    apart = np.linalg.norm(view.frames_FHWC - view.backdrop_HWC, axis=-1) > 45
    return (red > 150) & (red >= green) & (green > blue - 10) & (red - blue > 40) & apart


@tracker(
    "explosion",
    "bomb",
    Law("the fireball only grows", 0.1, "the whole growth"),
    Law("the growth slows down", 0.25, "the largest growth in a sixteenth of the clip"),
)
def _bomb(view: View) -> dict[str, float]:
    unlike = np.linalg.norm(view.frames_FHWC - view.backdrop_HWC, axis=-1) > 18
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (view.odd(5), view.odd(5)))
    area = np.zeros(len(unlike))
    for f, mask in enumerate(unlike.astype(np.uint8)):
        opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel)
        _, _, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
        area[f] = stats[1:, cv2.CC_STAT_AREA].max() * view.cell if len(stats) > 1 else 0
    radius = np.sqrt(area / np.pi)
    moved(radius, 3.0, "the fireball")
    hot = _flame(view).sum((1, 2)) * view.cell > 12
    if not hot.any():
        raise TrackLost("nothing explodes")
    growth = np.diff(area)
    begin = int(np.argmax(growth > 0.25 * growth.max())) + 1  # a second blast may be the larger one
    grown = radius[begin :: view.stride]
    if len(grown) < 4:
        raise TrackLost("the explosion comes too late to be measured")
    return {"the fireball only grows": backwards(grown), "the growth slows down": speeding_up(grown)}
