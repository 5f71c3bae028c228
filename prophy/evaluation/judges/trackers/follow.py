"""Following what moves: the largest patch of a matte over the frames, and a ray's middle over the rows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from prophy.evaluation.judges.laws import TrackLost
from prophy.evaluation.judges.trackers.view import View
from prophy.worlds.stage import Region

LEAST_AREA = 6.0  # square units that an object covers, at least
_SEEN = 0.6  # share of the frames in which it must be found
LEAP = 1.0  # units: a level that changes against its way by more, from one frame to the next, leaps


@dataclass(frozen=True)
class Blob:
    """An object followed over the frames; NaN where it is not seen.

    Attributes:
        position_F2: its centroid on the stage.
        area_F: square units it covers.
        whole_F: whether all of it is in the region: it does not touch an edge, or is as large there as elsewhere.
        row_F: units of its longest row.
    """

    position_F2: np.ndarray
    area_F: np.ndarray
    whole_F: np.ndarray
    row_F: np.ndarray

    def coordinate(self, axis: int) -> np.ndarray:
        """x (0) or y (1), NaN where the object is not wholly seen."""
        return np.where(self.whole_F, self.position_F2[:, axis], np.nan)

    @property
    def size(self) -> np.ndarray:
        """The area, NaN where the object is not wholly seen."""
        return np.where(self.whole_F, self.area_F, np.nan)

    def x_of_disc(self, region: Region) -> np.ndarray:
        """x of a disc: also where one of the region's sides cuts it, from the row through its middle."""
        area = float(np.nanmedian(self.size)) if np.isfinite(self.size).any() else np.nan
        radius = np.sqrt(area / np.pi)
        left = self.position_F2[:, 0] < region.centre
        cut = np.where(left, region.left + self.row_F - radius, region.right - self.row_F + radius)
        return np.where(self.whole_F, self.position_F2[:, 0], np.where(self.area_F > 0.25 * area, cut, np.nan))


def follow(view: View, alpha_FHW: np.ndarray, gap: float = 5) -> Blob:
    """Follow the largest connected patch of a matte.

    Args:
        view: what the matte is of.
        alpha_FHW: of :meth:`~prophy.evaluation.judges.trackers.view.View.matte`.
        gap: dark or bright holes up to this many units wide are filled, such as a ball's highlight.

    Raises:
        TrackLost: it is seen in too few frames.
    """
    frames, height, width = alpha_FHW.shape
    position, area, whole = np.full((frames, 2), np.nan), np.full(frames, np.nan), np.zeros(frames, bool)
    longest = np.full(frames, np.nan)
    hole = view.odd(gap)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (hole, hole))
    rim = np.ones((2 * round(1 / view.pixel) + 1,) * 2, np.uint8)
    ys, xs = np.mgrid[:height, :width] + 0.5
    for f in range(frames):
        padded = np.pad(alpha_FHW[f], hole)  # or closing would fill what lies between an object and the edge
        alpha = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[hole:-hole, hole:-hole]
        count, names, stats, _ = cv2.connectedComponentsWithStats((alpha > 0.4).astype(np.uint8), connectivity=4)
        if count < 2:
            continue
        best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        weight = alpha * cv2.dilate((names == best).astype(np.uint8), rim)
        cover = weight.sum()
        if cover * view.cell < LEAST_AREA:
            continue
        area[f] = cover * view.cell
        longest[f] = weight.sum(1).max() * view.pixel_across
        position[f] = (
            view.region.left + (weight * xs).sum() / cover * view.pixel_across,
            (weight * ys).sum() / cover * view.pixel,
        )
        x, y, w, h = stats[best, :4]
        whole[f] = x > 0 and y > 0 and x + w < width and y + h < height
    if np.isfinite(area).mean() < _SEEN:
        raise TrackLost(f"seen in {int(np.isfinite(area).sum())} of {frames} frames")
    return Blob(position, area, whole | (area > 0.98 * np.nanmedian(area)), longest)


def row_centres(view: View, alpha_FHW: np.ndarray, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of the mean over frames, where the matte lies: y, and x from the left of the view.

    Rows at the ends, and those that hold less than the others, are left out: a cut or a lamp would pull them aside.
    """
    part = alpha_FHW.mean(0)[rows, columns]
    weight = part.sum(1)
    y = np.arange(rows.start, rows.start + len(part)) + 0.5
    x = columns.start + (part * (np.arange(part.shape[1]) + 0.5)).sum(1) / np.maximum(weight, 1e-9)
    held = weight[weight * view.pixel_across > 0.5]
    usual = np.median(held) if len(held) else np.inf
    kept = np.flatnonzero((weight > 0.75 * usual) & (weight < 1.4 * usual))
    kept = kept[round(3 / view.pixel) : -round(2 / view.pixel)]
    return y[kept] * view.pixel, x[kept] * view.pixel_across


def moved(values_F: np.ndarray, least: float, what: str) -> None:
    """Refuse what stands still.

    Raises:
        TrackLost: its range is below ``least``.
    """
    spread = np.nanmax(values_F) - np.nanmin(values_F) if np.isfinite(values_F).any() else 0.0
    if spread < least:
        raise TrackLost(f"{what} does not change ({spread:.1f})")
