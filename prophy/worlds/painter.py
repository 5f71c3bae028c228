"""An anti-aliased painter that draws masks beside pictures, in stage units."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import ArrayLike

from prophy.worlds.stage import BACKGROUNDS, FLOOR, Region, Stage, mix

Colour: TypeAlias = tuple[float, ...]  #: RGB, 0 to 255
Point: TypeAlias = np.ndarray | tuple[float, float]  #: x and y in stage units; also a pair of lengths

SUPERSAMPLE = 2  #: shapes are drawn at twice the size and averaged down: smoother than OpenCV's own anti-aliasing
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates


def background(name: str, stage: Stage = Stage()) -> np.ndarray:
    """Wall and ground of a scene, RGB float32 ``(H, W, 3)`` at supersampled size."""
    top, bottom, ground = (np.array(c, np.float32) for c in BACKGROUNDS[name])
    height, width = stage.height * SUPERSAMPLE, stage.width * SUPERSAMPLE
    line = round(FLOOR * stage.scale * SUPERSAMPLE)
    picture = np.empty((height, width, 3), np.float32)
    ramp = np.linspace(0, 1, line, dtype=np.float32)[:, None, None]
    picture[:line] = top + (bottom - top) * ramp
    ramp = np.linspace(0, 1, height - line, dtype=np.float32)[:, None, None]
    picture[line:] = ground * (1.0 - 0.18 * ramp)
    return picture


class Painter:
    """One frame being painted, and the mask of the phenomenon that is being painted.

    Every shape takes ``act``: whether its pixels belong to the phenomenon (a bouncing ball) or are
    scenery (the tap the water comes from). Shapes are clipped to the event's region.

    Args:
        picture: of :func:`background`; it is painted on.
        stage: whose it is.
    """

    def __init__(self, picture: np.ndarray, stage: Stage = Stage()) -> None:
        self._stage, self._scale = stage, stage.scale * SUPERSAMPLE
        self._roundness = max(1.0, stage.scale**0.5)
        self._whole = picture
        self._masks: dict[str, np.ndarray] = {}
        self.picture = picture
        self._mask = np.zeros(picture.shape[:2], np.uint8)
        self._offset = 0.0

    def enter(self, phenomenon: str, region: Region) -> None:
        """Start painting an event: clip to its region and collect its mask."""
        if phenomenon not in self._masks:
            self._masks[phenomenon] = np.zeros(self._whole.shape[:2], np.uint8)
        columns = self._stage.columns(region, SUPERSAMPLE)
        self.picture, self._mask = self._whole[:, columns], self._masks[phenomenon][:, columns]
        self._offset = region.left

    def finish(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The frame as uint8 ``(H, W, 3)`` and each phenomenon's boolean mask ``(H, W)``."""
        size = (self._stage.width, self._stage.height)
        frame = cv2.resize(self._whole, size, interpolation=cv2.INTER_AREA)
        masks = {key: cv2.resize(mask, size, interpolation=cv2.INTER_AREA) > 100 for key, mask in self._masks.items()}
        return np.clip(frame + 0.5, 0, 255).astype(np.uint8), masks

    def _points(self, points: ArrayLike) -> np.ndarray:
        units = np.asarray(points, np.float64).reshape(-1, 2) - (self._offset, 0.0)
        return np.round((units * self._scale - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def _turn(self, corners: int) -> np.ndarray:
        """Angles of a polygon's corners, ``corners`` of them at 64 pixels: the larger a circle, the more it has."""
        return np.linspace(0, 2 * np.pi, round(corners * self._roundness), endpoint=False)

    def polygon(self, points: ArrayLike, colour: Colour, act: bool = False) -> None:
        fixed = self._points(points)[None]
        cv2.fillPoly(self.picture, fixed, colour, cv2.LINE_8, _SHIFT)
        if act:
            cv2.fillPoly(self._mask, fixed, 255, cv2.LINE_8, _SHIFT)

    def rectangle(
        self, left: float, top: float, right: float, bottom: float, colour: Colour, act: bool = False
    ) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour, act)

    def ellipse(self, centre: Point, axes: Point, colour: Colour, act: bool = False, angle: float = 0.0) -> None:
        turn = self._turn(40)
        points = np.stack([np.cos(turn) * axes[0], np.sin(turn) * axes[1]], 1)
        c, s = np.cos(angle), np.sin(angle)
        self.polygon(points @ np.array([[c, s], [-s, c]]) + centre, colour, act)

    def ball(self, centre: Point, radius: float, colour: Colour, act: bool = True, squash: float = 1.0) -> None:
        """A shaded ball; ``squash`` < 1 flattens it, keeping its area."""
        axes = np.array([radius / squash**0.5, radius * squash**0.5])
        centre = np.asarray(centre, float)
        self.ellipse(centre, axes, mix(colour, (0, 0, 0), 0.32), act)
        self.ellipse(centre - 0.07 * axes, axes * 0.87, colour)
        self.ellipse(centre - 0.36 * axes, axes * 0.26, mix(colour, (255, 255, 255), 0.62))

    def line(self, start: Point, end: Point, width: float, colour: Colour, act: bool = False) -> None:
        """A straight stroke with square ends, ``width`` units wide."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        along = end - start
        length = float(np.hypot(*along))
        if length < 1e-6:
            return
        normal = np.array([-along[1], along[0]]) / length * width / 2
        self.polygon([start + normal, end + normal, end - normal, start - normal], colour, act)

    def shadow(self, x: float, half_width: float, y: float = FLOOR) -> None:
        """A soft contact shadow on the ground."""
        self.blend_ellipse((x, y + 1.2), (half_width, 1.6), (0, 0, 0), 0.22)

    def blend_ellipse(self, centre: Point, axes: Point, colour: Colour, alpha: float, act: bool = False) -> None:
        """A translucent ellipse."""
        turn = self._turn(28)
        points = np.stack([np.cos(turn) * axes[0], np.sin(turn) * axes[1]], 1) + centre
        self.blend_polygon(points, colour, alpha, act)

    def blend_polygon(self, points: ArrayLike, colour: Colour, alpha: float, act: bool = False) -> None:
        """A translucent polygon."""
        fixed = self._points(points)
        low = np.maximum(fixed.min(0) // (1 << _SHIFT) - 1, 0)
        high = np.minimum(fixed.max(0) // (1 << _SHIFT) + 3, np.array(self._mask.shape[::-1]))
        if (high <= low).any():
            return
        (x0, y0), (x1, y1) = low, high
        stencil = np.zeros((y1 - y0, x1 - x0), np.float32)
        cv2.fillPoly(stencil, (fixed - low * (1 << _SHIFT))[None].astype(np.int32), alpha, cv2.LINE_8, _SHIFT)
        part = self.picture[y0:y1, x0:x1]
        part += stencil[..., None] * (np.array(colour, np.float32) - part)
        if act:
            cv2.fillPoly(self._mask, fixed[None], 255, cv2.LINE_8, _SHIFT)

    def field(self, alpha: np.ndarray, colours: np.ndarray, act_above: float = 0.18) -> None:
        """Blend a density field over the region.

        Args:
            alpha: ``(h, w)`` opacity in [0, 1] over the region's whole height and width, any resolution.
            colours: one RGB colour ``(3,)`` or a field ``(h, w, 3)``.
            act_above: opacity above which a pixel belongs to the phenomenon.
        """
        shape = self._mask.shape[::-1]
        alpha = np.clip(cv2.resize(alpha.astype(np.float32), shape, interpolation=cv2.INTER_LINEAR), 0, 1)
        colours = np.asarray(colours, np.float32)
        if colours.ndim == 3:
            colours = cv2.resize(colours, shape, interpolation=cv2.INTER_LINEAR)
        self.picture += alpha[..., None] * (colours - self.picture)
        self._mask[alpha > act_above] = 255
