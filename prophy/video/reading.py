"""Read clips: all of one, its size, or the frames at given times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prophy.video.display import Display
from prophy.video.source import BrokenClip, TimedFrame, UnreadableClip, open_source

_MOST_BYTES = 768 * 1024**2  # of the frames returned: 270 of 1280 × 720
# Containers keep times in whole ticks, of a millisecond in the coarsest: a frame may be on show that much early.
_TICK = 0.0015
_LATEST = 10_000_000  # seconds, four months


class Clip(NamedTuple):
    """Decoded frames, uint8 RGB of shape (F, H, W, 3), and frames per second."""

    frames: np.ndarray
    fps: float


def read_video(path: str | Path) -> Clip:
    """Every frame of a clip, as a player shows it; frames of another size than the first are fitted to it.

    Returns:
        :class:`Clip`: uint8 RGB frames (F, H, W, 3) and the average frame rate in frames per second.

    Raises:
        UnreadableClip: the file is missing, is no video, is broken, or holds more than 768 MiB of frames.
    """
    path = Path(path)
    with open_source(path) as source:
        if source.rate <= 0:
            raise UnreadableClip(path, "does not say its frame rate")
        display, frames = Display(source), bytearray()
        size: tuple[int, int] | None = None
        for frame, _, _ in source.frames():
            if size is None:
                size = display.size(frame)
                _check_bytes(path, max(source.stream.frames, 1) * math.prod(size) * 3)
            frames += display.picture(frame, *size).data
            _check_bytes(path, len(frames))
        if size is None:
            raise UnreadableClip(path, "holds no frames")
        return Clip(np.frombuffer(frames, np.uint8).reshape(-1, *size, 3), source.rate)


def picture_size(path: str | Path) -> tuple[int, int]:
    """Height and width that a clip is shown at, in square pixels; its first frame is decoded for that.

    Raises:
        UnreadableClip: the file is missing, is no video, is broken, or is to be shown in a way that is none.
    """
    path = Path(path)
    with open_source(path) as source:
        for frame, _, _ in source.frames():
            return Display(source).size(frame)
    raise UnreadableClip(path, "holds no frames")


def sample_frames(
    path: str | Path,
    frames: int,
    fps: float,
    height: int,
    width: int,
    *,
    start: float = 0.0,
    fewest: int | None = None,
) -> np.ndarray:
    """The frames on show at ``start + k / fps`` seconds for ``k`` below ``frames``, at one size.

    They are as a player shows them: turned upright, with square pixels, in sRGB, HDR tone-mapped, interlaced ones
    without their comb. Decoding begins at the key frame before ``start`` and ends with the last frame needed, and only
    the frames taken are held, so a long file costs no more than the piece that is read. Each is cut to the shape asked
    for, around its middle, and resized. A frame is repeated where the file has fewer a second than asked for.

    Args:
        path: MP4, MOV, Matroska, WebM, AVI and the like, whatever its name says.
        frames: how many.
        fps: frames a second of what is returned, whatever the file's own.
        height: pixels of what is returned.
        width: pixels of what is returned.
        start: seconds into the file.
        fewest: how many are enough where the file is too short for all; None: all are needed.

    Returns:
        uint8 RGB, (F, H, W, 3).

    Raises:
        UnreadableClip: the file is missing, is no video, has no picture, is cut off or broken before the last frame
            needed, is too short, cannot be shown, or is too large or too long to decode.
        ValueError: a size, count, rate or start that is out of range.
    """
    fewest = frames if fewest is None else fewest
    _check_wanted(frames, fps, height, width, start, fewest)
    path = Path(path)
    problem = ""
    with open_source(path) as source:
        declared = source.duration
        times = [start + k / fps + _TICK for k in range(frames)]
        taken = _Taken(Display(source), times, np.empty((frames, height, width, 3), np.uint8))
        try:
            taken.from_frames(source.frames(start))
        except BrokenClip as error:
            problem = error.reason
    if taken.count >= fewest:
        return taken.pictures[: taken.count]
    need = f"{fewest} frames at {fps:g} a second from {start:g} s need {start + (fewest - 1) / fps:.2f} s"
    if problem:
        raise UnreadableClip(path, f"{problem}; {need}")
    if taken.end == 0:
        raise UnreadableClip(path, "holds no frames")
    # Containers round: half a second less than declared is no sign of a cut.
    if declared is not None and declared > taken.end + 0.5:
        raise UnreadableClip(path, f"is cut off after {taken.end:.2f} of {declared:.2f} s; {need}")
    raise UnreadableClip(path, f"is too short, {taken.end:.2f} s; {need}")


class _Taken:
    """Pictures of the frames on show at some times, taken as the frames go by.

    Attributes:
        pictures: uint8 RGB, (F, H, W, 3), of which the first ``count`` are filled.
        count: how many there are.
        end: seconds, when the last frame that went by is no longer on show.
    """

    def __init__(self, display: Display, times: Sequence[float], pictures: np.ndarray) -> None:
        self.pictures, self.count, self.end = pictures, 0, 0.0
        self._display, self._times = display, times

    def from_frames(self, frames: Iterable[TimedFrame]) -> None:
        """Take what is on show at each time, to the last of them or of the frames."""
        shown: TimedFrame | None = None
        for frame in frames:
            self._take(shown, frame.time)
            if self.count == len(self._times):
                return
            shown, self.end = frame, frame.end
        self._take(shown, self.end + _TICK)

    def _take(self, shown: TimedFrame | None, until: float) -> None:
        """One frame for every time that is left before ``until``."""
        first = self.count
        while shown is not None and self.count < len(self._times) and self._times[self.count] < until:
            if self.count == first:
                self.pictures[first] = self._display.picture(shown.frame, *self.pictures.shape[1:3])
            else:
                self.pictures[self.count] = self.pictures[first]
            self.count += 1


def _check_wanted(frames: int, fps: float, height: int, width: int, start: float, fewest: int) -> None:
    if not all(isinstance(number, int) and number >= 1 for number in (frames, height, width)):
        raise ValueError(f"frames={frames}, height={height} and width={width} must be whole numbers, at least 1")
    if frames * height * width * 3 > _MOST_BYTES:
        raise ValueError(
            f"{frames} frames of {width}×{height} are more than {_MOST_BYTES >> 20} MiB: ask for fewer or smaller ones"
        )
    if not 1 <= fewest <= frames:
        raise ValueError(f"fewest={fewest} must be from 1 to {frames}")
    if not (0 < fps < math.inf and 0 <= start <= _LATEST):
        raise ValueError(f"fps={fps} must be above 0, and start={start} must be from 0 to {_LATEST}")


def _check_bytes(path: Path, size: int) -> None:
    if size > _MOST_BYTES:
        raise UnreadableClip(path, f"decodes to more than {_MOST_BYTES >> 20} MiB: cut it into shorter clips")
