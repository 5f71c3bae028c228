"""The stage of a synthetic world: colours, backgrounds, and an anti-aliased painter that draws masks beside pictures.

Units: lengths are output pixels with y pointing down, times are seconds, angles are radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

SIZE = 64  #: height and width of a clip, pixels: the smallest size at which laws can still be tracked.
FRAMES = 17  #: frames of a clip: 1 + 4·4, five latent frames of a Wan VAE.
FPS = 8  #: two seconds of action.
FLOOR = 54.0  #: height of the ground line, pixels from the top.

SUPERSAMPLE = 2  # shapes are drawn at twice the size and averaged down: smoother than OpenCV's own anti-aliasing
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 45, 45),
    "orange": (242, 134, 28),
    "yellow": (246, 206, 44),
    "green": (44, 158, 72),
    "blue": (38, 98, 214),
    "purple": (140, 66, 190),
}

#: name -> (top of the wall, bottom of the wall, ground)
BACKGROUNDS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "day": ((206, 228, 244), (238, 244, 248), (196, 186, 164)),
    "studio": ((246, 238, 222), (250, 246, 238), (214, 198, 176)),
    "dusk": ((176, 164, 196), (226, 198, 196), (128, 112, 122)),
    "night": ((22, 26, 48), (44, 50, 82), (34, 36, 50)),
}


def mix(a: tuple[float, ...], b: tuple[float, ...], share: float) -> tuple[float, ...]:
    """Blend two RGB colours; ``share`` of ``b``."""
    return tuple(x + (y - x) * share for x, y in zip(a, b, strict=True))


@dataclass(frozen=True)
class Region:
    """The part of the stage one event may use: ``left`` to ``right`` in pixels."""

    left: float
    right: float

    @property
    def centre(self) -> float:
        return (self.left + self.right) / 2

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def scale(self) -> float:
        """1 on a half stage, about 1.35 on a whole one: single events are drawn larger."""
        return 1.0 if self.width <= SIZE / 2 else 1.35


class Knobs:
    """Draws an event's physical parameters, keeping one end of every range for the held-out split.

    Args:
        rng: source of randomness.
        held_out: draw from the top 15 % of each range, which training never sees; otherwise from the bottom 80 %.
    """

    def __init__(self, rng: np.random.Generator, held_out: bool) -> None:
        self.rng = rng
        self._low, self._high = (0.85, 1.0) if held_out else (0.0, 0.8)

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.uniform(self._low, self._high)

    def sign(self) -> int:
        return 1 if self.rng.random() < 0.5 else -1


def background(name: str) -> np.ndarray:
    """Wall and ground of a scene, RGB float32 ``(S, S, 3)`` at supersampled size."""
    top, bottom, ground = (np.array(c, np.float32) for c in BACKGROUNDS[name])
    size = SIZE * SUPERSAMPLE
    line = int(FLOOR * SUPERSAMPLE)
    picture = np.empty((size, size, 3), np.float32)
    ramp = np.linspace(0, 1, line, dtype=np.float32)[:, None, None]
    picture[:line] = top + (bottom - top) * ramp
    ramp = np.linspace(0, 1, size - line, dtype=np.float32)[:, None, None]
    picture[line:] = ground * (1.0 - 0.18 * ramp)
    return picture


class Painter:
    """One frame being painted, and the mask of the phenomenon that is being painted.

    Every shape takes ``act``: whether its pixels belong to the phenomenon (a bouncing ball) or are
    scenery (the tap the water comes from). Shapes are clipped to the event's region.
    """

    def __init__(self, picture: np.ndarray) -> None:
        self._whole = picture
        self._masks: dict[str, np.ndarray] = {}
        self.picture = picture
        self._mask = np.zeros(picture.shape[:2], np.uint8)
        self._offset = 0.0

    def enter(self, phenomenon: str, region: Region) -> None:
        """Start painting an event: clip to its region and collect its mask."""
        size = self._whole.shape[0]
        mask = self._masks.setdefault(phenomenon, np.zeros((size, size), np.uint8))
        a, b = int(region.left * SUPERSAMPLE), int(region.right * SUPERSAMPLE)
        self.picture, self._mask, self._offset = self._whole[:, a:b], mask[:, a:b], region.left

    def finish(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The frame as uint8 ``(SIZE, SIZE, 3)`` and each phenomenon's boolean mask ``(SIZE, SIZE)``."""
        frame = cv2.resize(self._whole, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        masks = {
            key: cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_AREA) > 100 for key, mask in self._masks.items()
        }
        return np.clip(frame + 0.5, 0, 255).astype(np.uint8), masks

    def _points(self, points: ArrayLike) -> np.ndarray:
        shifted = np.asarray(points, np.float64).reshape(-1, 2) - (self._offset, 0.0)
        return np.round((shifted * SUPERSAMPLE - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def polygon(self, points: ArrayLike, colour: tuple[float, ...], act: bool = False) -> None:
        fixed = self._points(points)[None]
        cv2.fillPoly(self.picture, fixed, colour, cv2.LINE_8, _SHIFT)
        if act:
            cv2.fillPoly(self._mask, fixed, 255, cv2.LINE_8, _SHIFT)

    def rectangle(self, left, top, right, bottom, colour, act: bool = False) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour, act)

    def ellipse(self, centre, axes, colour, act: bool = False, angle: float = 0.0) -> None:
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        points = np.stack([np.cos(turn) * axes[0], np.sin(turn) * axes[1]], 1)
        c, s = np.cos(angle), np.sin(angle)
        self.polygon(points @ np.array([[c, s], [-s, c]]) + centre, colour, act)

    def ball(self, centre, radius: float, colour, act: bool = True, squash: float = 1.0) -> None:
        """A shaded ball; ``squash`` < 1 flattens it, keeping its area."""
        axes = np.array([radius / squash**0.5, radius * squash**0.5])
        centre = np.asarray(centre, float)
        self.ellipse(centre, axes, mix(colour, (0, 0, 0), 0.32), act)
        self.ellipse(centre - 0.07 * axes, axes * 0.87, colour)
        self.ellipse(centre - 0.36 * axes, axes * 0.26, mix(colour, (255, 255, 255), 0.62))

    def line(self, start, end, width: float, colour, act: bool = False) -> None:
        """A straight stroke with square ends, ``width`` pixels wide."""
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

    def blend_ellipse(self, centre, axes, colour, alpha: float, act: bool = False) -> None:
        """A translucent ellipse."""
        turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        points = np.stack([np.cos(turn) * axes[0], np.sin(turn) * axes[1]], 1) + centre
        self.blend_polygon(points, colour, alpha, act)

    def blend_polygon(self, points, colour, alpha: float, act: bool = False) -> None:
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
