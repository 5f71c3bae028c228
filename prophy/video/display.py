"""A decoded frame as a player shows it: without its edges, the right way up, with square pixels, in sRGB."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from prophy.video.colour import Colours
from prophy.video.source import PICTURE_SIDE, Source, UnreadableClip

_SLANT = 0.035  # of a display matrix, two degrees: rounding, not a turn
_UNSPECIFIED = 2
_DOLBY_VISION = frozenset(("dvh1", "dvhe", "dva1", "dvav", "dav1"))  # sample entries that other players cannot show


class Turn(NamedTuple):
    """How a coded picture is turned to be shown: rows become columns, then it is mirrored, then put upside down."""

    transposed: bool
    mirrored: bool
    upside_down: bool

    @classmethod
    def of(cls, a: float, b: float, c: float, d: float) -> Turn:
        """From a display matrix (ISO/IEC 14496-12, 6.2.2), which shows the point (x, y) at (a x + c y, b x + d y).

        Its scale counts for nothing, and a matrix that leaves no area is none.

        Raises:
            ValueError: it turns by something between quarters.
        """
        if a * d == b * c:
            return cls(False, False, False)
        if max(abs(b), abs(c)) <= _SLANT * min(abs(a), abs(d)):
            return cls(False, a < 0, d < 0)
        if max(abs(a), abs(d)) <= _SLANT * min(abs(b), abs(c)):
            return cls(True, c < 0, b < 0)
        degrees = round(math.degrees(math.atan2(b, a)))
        raise ValueError(f"is to be shown turned by {degrees} degrees: re-encode it upright")

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """A turned view of a picture, (H, W, 3)."""
        picture = picture.swapaxes(0, 1) if self.transposed else picture
        return picture[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]


class Display:
    """Shows the frames of one source.

    Args:
        source: where they come from.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._reformatter = source, VideoReformatter()
        self._rotation: int | None = None
        self._side_data: Mapping[str, bytes] = {}

    def size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Height and width that a frame is shown at, in square pixels, its height kept.

        Raises:
            UnreadableClip: it is to be shown askew, or far too wide or narrow.
        """
        return self._placed(frame)[1]

    def picture(self, frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
        """The middle of a frame in the shape ``height`` × ``width``, resized to it: uint8 RGB, (H, W, 3).

        Raises:
            UnreadableClip: as :meth:`size`, or it has colours that are not read.
        """
        turn, shown = self._placed(frame)
        tag = self._source.stream.codec_context.codec_tag
        if frame.color_trc == _UNSPECIFIED and (tag in _DOLBY_VISION or "DOVI_METADATA" in self._side_data):
            raise self._unreadable("is in Dolby Vision that other players cannot show (profile 5): convert it to HDR10")
        try:
            colours = Colours.of(frame)
        except ValueError as error:
            raise self._unreadable(str(error)) from error
        rows, columns = self._source.crop.size(frame.height, frame.width)
        left, top, *_ = self._source.crop
        coded = colours.pixels(frame, self._reformatter)[top : top + rows, left : left + columns]
        pixels = _fitted(turn.apply(coded), shown, height, width)
        return pixels if colours.ordinary else colours.to_srgb(pixels)

    def _placed(self, frame: av.VideoFrame) -> tuple[Turn, tuple[int, int]]:
        """How a frame is turned, and the height and width it is shown at."""
        if frame.rotation != self._rotation:
            self._rotation, self._side_data = frame.rotation, _side_data(frame)
        if matrix := self._side_data.get("DISPLAYMATRIX"):
            a, b, _, c, d = struct.unpack_from("=5i", matrix)
        else:
            angle = math.radians(-frame.rotation)
            a, b, c, d = math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)
        try:
            turn = Turn.of(a, b, c, d)
            height, width = self._source.crop.size(frame.height, frame.width)
        except ValueError as error:
            raise self._unreadable(str(error)) from error
        aspect = self._source.pixel_aspect
        if turn.transposed:
            height, width, aspect = width, height, 1 / aspect
        shown = round(width * aspect)
        if not 1 <= shown <= PICTURE_SIDE:
            raise self._unreadable(f"is to be shown {shown} pixels wide and {height} high: re-encode it, square pixels")
        return turn, (height, shown)

    def _unreadable(self, reason: str) -> UnreadableClip:
        return UnreadableClip(self._source.path, reason)


def _side_data(frame: av.VideoFrame) -> Mapping[str, bytes]:
    """What comes with a frame, by FFmpeg's names. PyAV keeps a frame that was asked for long after: ask few."""
    try:
        return {data.type.name: bytes(data) for data in frame.side_data}
    except ValueError:  # one kind that PyAV has no name for hides the others; the rotation can still be had
        return {}


def _fitted(picture: np.ndarray, shown: tuple[int, int], height: int, width: int) -> np.ndarray:
    """The middle of a picture in the shape ``height`` × ``width``, resized to it.

    Args:
        picture: (H, W, 3).
        shown: height and width that it is shown at, by which its pixels may not be square.
        height, width: of what is returned.
    """
    if picture.shape[:2] == shown == (height, width):
        return np.ascontiguousarray(picture)
    scale = min(shown[0] / height, shown[1] / width)
    stretch = picture.shape[1] / shown[1]
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale * stretch))
    top, left = (picture.shape[0] - rows) // 2, (picture.shape[1] - columns) // 2
    middle = picture[top : top + rows, left : left + columns]
    # Averaging is the only one of OpenCV's that does not alias when it shrinks, and it is not meant to enlarge.
    smaller = cv2.resize(middle, (min(columns, width), min(rows, height)), interpolation=cv2.INTER_AREA)
    return cv2.resize(smaller, (width, height), interpolation=cv2.INTER_CUBIC)
