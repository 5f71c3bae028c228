"""The stage of a synthetic world: its size, length and rate, its colours, and the randomness of what happens on it.

Units: lengths are *stage units* with y pointing down, times are seconds, angles are radians. Every stage is 64 units
high, so that what happens on it does not depend on how many pixels it is shown with: only the painter and the trackers
know pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prophy.schema import check_fields

UNITS = 64.0  #: height of every stage
FLOOR = 54.0  #: height of the ground line, from the top

SIZE_STEP = 8  #: pixels: the autoencoder's cells, and halves of the stage on whole ones
HEIGHTS = (48, 1088)  #: pixels: below, tracks are too coarse for their laws
WIDEST = 2.2  #: width over height; at least 1
RATES = (8, 32)  #: frames a second: below, oscillations have too few frames to be seen
DURATIONS = (2.0, 6.0)  #: seconds: below, not every law has the time to show

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
    """The part of the stage one event may use: ``left`` to ``right`` in stage units."""

    left: float
    right: float

    @property
    def centre(self) -> float:
        return (self.left + self.right) / 2

    @property
    def width(self) -> float:
        return self.right - self.left

    def around(self, half: float) -> Region:
        """The part that reaches ``half`` to either side of the centre."""
        return Region(self.centre - half, self.centre + half)

    def between(self, narrow: float, wide: float) -> float:
        """From ``narrow`` in half of a square stage (32 units) to ``wide`` in a whole one (64 units, and more)."""
        return narrow + (wide - narrow) * min(max(self.width / 32 - 1, 0.0), 1.0)

    @property
    def scale(self) -> float:
        """How large things are drawn for the room there is: 1 in 32 units, 1.35 in 64; the height allows no more."""
        return self.between(1.0, 1.35)


@dataclass(frozen=True)
class Stage:
    """The size, length and rate of a clip. The default is that of the first embedded model.

    Attributes:
        width: pixels.
        height: pixels.
        frames: of the clip, one more than a multiple of four: whole latent frames of a Wan autoencoder.
        fps: frames a second.

    Raises:
        ValueError: a size, length or rate that worlds, autoencoders or trackers cannot do.
    """

    width: int = 64
    height: int = 64
    frames: int = 17
    fps: int = 8

    def __post_init__(self) -> None:
        check_fields(self)
        size = f"{self.width}×{self.height}"
        if self.width % SIZE_STEP or self.height % SIZE_STEP:
            raise ValueError(f"a stage of {size} pixels: give a width and a height that {SIZE_STEP} divides")
        if not HEIGHTS[0] <= self.height <= HEIGHTS[1]:
            raise ValueError(f"a stage of {size} pixels: give a height of {HEIGHTS[0]} to {HEIGHTS[1]}")
        if not self.height <= self.width <= WIDEST * self.height:
            raise ValueError(f"a stage of {size} pixels: give a width of 1 to {WIDEST} times the height")
        if not RATES[0] <= self.fps <= RATES[1]:
            raise ValueError(f"{self.fps} frames a second: give {RATES[0]} to {RATES[1]}")
        if self.frames % 4 != 1:
            raise ValueError(f"{self.frames} frames: give one more than a multiple of 4, as in 17, 33 or 81")
        if not DURATIONS[0] <= self.duration <= DURATIONS[1]:
            least, most = (round(seconds * self.fps) // 4 * 4 + 1 for seconds in DURATIONS)
            least += 4 * (least - 1 < DURATIONS[0] * self.fps)
            raise ValueError(
                f"{self.frames} frames at {self.fps} a second last {self.duration:.1f} s: give {least} to {most} frames"
            )

    @classmethod
    def parse(cls, size: str, fps: int = 8) -> Stage:
        """Read a size such as ``96x64x17``.

        Raises:
            ValueError: it is not three whole numbers, or no stage has this size, length or rate.
        """
        parts = size.lower().split("x")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError(f"--size {size} is not WxHxF: give three numbers, as in 96x64x17")
        width, height, frames = map(int, parts)
        return cls(width, height, frames, fps)

    def __str__(self) -> str:
        return f"{self.width}×{self.height}×{self.frames} at {self.fps} frames a second"

    @property
    def size(self) -> str:
        """``WxHxF``, as :meth:`parse` reads it."""
        return f"{self.width}x{self.height}x{self.frames}"

    @property
    def scale(self) -> float:
        """Pixels a stage unit."""
        return self.height / UNITS

    @property
    def detail(self) -> int:
        """How much finer than a stage of 64 pixels a large one shows fluids."""
        return max(1, round(self.scale / 2.5))

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the last."""
        return (self.frames - 1) / self.fps

    @property
    def stretch(self) -> float:
        """Duration over the two seconds that scenes are written for: how much more slowly a process fills the clip."""
        return self.duration / 2

    @cached_property
    def times(self) -> np.ndarray:
        """Seconds at which the frames are taken, ``(F,)``."""
        return np.arange(self.frames) / self.fps

    @property
    def whole(self) -> Region:
        return Region(0.0, UNITS * self.width / self.height)

    @property
    def halves(self) -> dict[str, Region]:
        """The two halves, ``left`` and ``right``."""
        whole = self.whole
        return {"left": Region(0.0, whole.centre), "right": Region(whole.centre, whole.right)}

    def region(self, place: str) -> Region:
        """Where an event plays: the whole stage for ``centre``, else the half of that name."""
        return self.whole if place == "centre" else self.halves[place]

    def columns(self, region: Region, finer: int = 1) -> slice:
        """The pixel columns of a region, in a picture ``finer`` times as large as the clip."""
        return slice(round(region.left * self.scale * finer), round(region.right * self.scale * finer))


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
