"""What a tracker sees: the event's part of a clip, and the mattes of its colours."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from prophy.worlds import COLOURS, Placed, Stage
from prophy.worlds.painter import SUPERSAMPLE, background
from prophy.worlds.stage import BACKGROUNDS, UNITS, Region

_ROWS = 128  # a larger clip is averaged down to so many rows: enough for every law, and quick


@dataclass(frozen=True)
class View:
    """What a tracker sees.

    Attributes:
        frames_FHWC: float32 RGB, 0 to 255, of the region only.
        backdrop_HWC: the setting without anything on it.
        region: of the stage.
        colours: RGB of the event's colours, in the prompt's order.
        fps: frames a second.
    """

    frames_FHWC: np.ndarray
    backdrop_HWC: np.ndarray
    region: Region
    colours: tuple[tuple[int, int, int], ...]
    fps: int

    @property
    def times(self) -> np.ndarray:
        """Seconds of the frames, ``(F,)``."""
        return np.arange(len(self.frames_FHWC)) / self.fps

    @property
    def pixel(self) -> float:
        """Height of a row, stage units."""
        return UNITS / self.frames_FHWC.shape[1]

    @property
    def pixel_across(self) -> float:
        """Width of a column, stage units: that of a row but for rounding where the clip was averaged down."""
        return self.region.width / self.frames_FHWC.shape[2]

    @property
    def cell(self) -> float:
        """Area of a pixel, square units."""
        return self.pixel * self.pixel_across

    @property
    def columns(self) -> np.ndarray:
        """Middle of each column on the stage."""
        return self.region.left + (np.arange(self.frames_FHWC.shape[2]) + 0.5) * self.pixel_across

    def rows(self, top: float, bottom: float) -> slice:
        """Rows whose middles lie between two heights, in units from the top."""
        return slice(*(max(0, round(y / self.pixel)) for y in (top, bottom)))

    def between(self, left: float, right: float) -> slice:
        """Columns whose middles lie between two x of the stage."""
        inside = np.flatnonzero((self.columns > left) & (self.columns < right))
        return slice(int(inside[0]), int(inside[-1]) + 1)

    def odd(self, units: float) -> int:
        """The odd number of pixels nearest to a length: the size of a filter."""
        return 2 * round((units / self.pixel - 1) / 2) + 1

    def frames(self, seconds: float) -> int:
        """The number of frames nearest to a time, at least one."""
        return max(1, round(seconds * self.fps))

    @property
    def apart(self) -> int:
        """Frames from one look at a motion to the next: an eighth of a second."""
        return self.frames(1 / 8)

    @property
    def stride(self) -> int:
        """Frames from one look at a process that fills the clip to the next: a sixteenth of it."""
        return max(1, round((len(self.frames_FHWC) - 1) / 16))

    def looks(self, values_F: np.ndarray) -> np.ndarray:
        """A series as a process is looked at: means of what is seen in each stride."""
        count = -(-len(values_F) // self.stride)
        padded = np.full(count * self.stride, np.nan)
        padded[: len(values_F)] = values_F
        rows = padded.reshape(count, self.stride)
        seen = np.isfinite(rows)
        return np.where(seen.any(1), np.where(seen, rows, 0).sum(1) / np.maximum(seen.sum(1), 1), np.nan)

    def matte(self, which: int = 0, full: float = 0.62) -> np.ndarray:
        """How much of each pixel is of one of the event's colours, float32 ``(F, H, W)`` in [0, 1].

        By chroma, which shading and shadows leave alone: a dark rim has ``full`` of the colour's chroma. Pixels nearer
        to another of the event's colours are not counted.
        """
        excess = chroma(self.frames_FHWC) - chroma(self.backdrop_HWC)
        wanted = chroma(np.array(self.colours[which], np.float32))
        strength = excess @ wanted / (wanted @ wanted)
        alpha = np.clip((strength / full - 0.15) / 0.85, 0, 1)  # the walls' own tints are below that
        length = np.linalg.norm(excess, axis=-1) + 1e-6
        cosine = excess @ wanted / np.linalg.norm(wanted) / length
        alpha = np.where(cosine > 0.7, alpha, 0)
        for other in range(len(self.colours)):
            if other != which:
                rival = chroma(np.array(self.colours[other], np.float32))
                alpha = np.where(excess @ rival / np.linalg.norm(rival) / length > cosine, 0, alpha)
        return alpha.astype(np.float32)


def view_of(frames_FHWC: np.ndarray, event: Placed, setting: str, stage: Stage = Stage()) -> View:
    """The part of a clip in which an event takes place.

    Raises:
        ValueError: frames of another size, or an unknown setting.
    """
    if frames_FHWC.shape != (stage.frames, stage.height, stage.width, 3) or frames_FHWC.dtype != np.uint8:
        raise ValueError(
            f"a clip of {frames_FHWC.dtype} {frames_FHWC.shape} is not uint8"
            f" {stage.frames}×{stage.height}×{stage.width}×3"
        )
    if setting not in BACKGROUNDS:
        raise ValueError(f"unknown setting {setting!r}: use one of {', '.join(BACKGROUNDS)}")
    region = stage.region(event.place)
    columns = stage.columns(region)
    backdrop = background(setting, stage)[:, columns.start * SUPERSAMPLE : columns.stop * SUPERSAMPLE]
    width, rows = columns.stop - columns.start, min(stage.height, _ROWS)
    size = (round(width * rows / stage.height), rows)
    frames = frames_FHWC[:, :, columns].astype(np.float32)
    if rows < stage.height:
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    backdrop = cv2.resize(backdrop, size, interpolation=cv2.INTER_AREA)
    return View(frames, backdrop, region, tuple(COLOURS[name] for name in event.colours), stage.fps)


def chroma(rgb: np.ndarray) -> np.ndarray:
    """What is left of a colour without its grey, of the same shape."""
    return rgb - rgb.mean(-1, keepdims=True)
