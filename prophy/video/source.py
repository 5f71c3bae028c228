"""A video file opened with care: a regular file, of a container known here, no larger than it may be; and its frames.

Nothing that a file declares is believed before it is checked: the number of samples, the size of a picture, the number
of pictures. A file that is refused costs less than 1 GiB and a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import cv2
from av.codec.context import Flags
from av.stream import Discard, Disposition

from prophy.video.boxes import impossible_tables
from prophy.video.crop import Crop, declared_crop
from prophy.video.fields import progressive

# What training data may be packed in. FFmpeg goes by content, and would follow a playlist under a video's name.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf,gif"
_PICTURE_BRANDS = ("avif", "heic", "heix", "heif", "mif1")  # of MP4's relatives that hold one picture
_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
#: A decoder may keep 16 pictures, which are then 1 GiB. 8192 × 4320 in 8 bits is 50 MiB, 6144 × 3456 in 10 bits 61 MiB.
_PICTURE_BYTES = 64 * 1024**2
PICTURE_SIDE = 16384
_MAX_PIXELS = str(_PICTURE_BYTES * 8 // 12)  # FFmpeg's own check
#: Pixels decoded on the way to the last frame wanted, about 4 s: 12 s of 3840 × 2160 at 60 frames a second.
_MOST_PIXELS = 6_000_000_000
_LEAST_PIXELS = 1 << 16  # of a frame: small ones cost more than their pixels
_TOO_MUCH = "has too much to decode on the way to the last frame needed: re-encode it smaller or with fewer frames"


class UnreadableClip(ValueError):
    """A file that gives no clip: its path, and why, in one line. A pipeline can log it, count it and go on.

    Attributes:
        path: the file.
        reason: what is the matter, without the path.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, " ".join(reason.split())

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class BrokenClip(UnreadableClip):
    """A file that cannot be decoded from some frame on; those before it were good."""


class TimedFrame(NamedTuple):
    """A decoded frame, and when it is on show, in seconds from the first of the file."""

    frame: av.VideoFrame
    time: float
    end: float


@dataclass(frozen=True)
class Source:
    """An open file and the track that is its video.

    Attributes:
        path: of the file.
        stream: the track; its container is open.
        crop: what the container says is to be cut from every picture.
        rate: average frames a second; 0 where the file does not say.
        duration: seconds that the file says it has, or None.
        pixel_aspect: width over height of a pixel, as coded.
    """

    path: Path
    stream: av.VideoStream
    crop: Crop

    @property
    def rate(self) -> float:
        return float(self.stream.average_rate or self.stream.guessed_rate or 0)

    @property
    def duration(self) -> float | None:
        stream = self.stream
        return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None

    @property
    def pixel_aspect(self) -> float:
        return float(self.stream.sample_aspect_ratio or 1)

    def frames(self, start: float = 0.0) -> Iterator[TimedFrame]:
        """The frames from a key frame at or before ``start`` seconds, interlaced ones with their fields made one.

        Raises:
            BrokenClip: nothing more can be decoded.
            UnreadableClip: a picture is too large, or there is too much to decode.
        """
        try:
            for earlier in (start - back for back in (0, 2, 10, 60) if start > back):
                self._seek(earlier)
                frames = self._timed()
                # Where a container has no index, MPEG-TS, a seek may end behind the key frame.
                if (first := next(frames, None)) is not None and first.time <= start:
                    yield first
                    yield from frames
                    return
            if start > 0:
                self._seek(0)
            yield from self._timed()
        except av.ArgumentError as error:  # what decoders say, too, of a picture of more than max_pixels
            raise BrokenClip(self.path, "breaks off: a picture is damaged or too large") from error
        except av.FFmpegError as error:
            raise BrokenClip(self.path, f"breaks off: {error.strerror or error}") from error

    def _origin(self) -> float:
        """When the first frame is on show, in the file's own seconds."""
        stream = self.stream
        return float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0

    def _seek(self, time: float) -> None:
        if self.stream.time_base:
            self.stream.container.seek(int((self._origin() + time) / self.stream.time_base), stream=self.stream)

    def _timed(self) -> Iterator[TimedFrame]:
        origin, rate = self._origin(), self.rate or 25.0
        for number, frame in enumerate(progressive(self._decoded())):
            time = number / rate if frame.time is None else frame.time - origin
            length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1 / rate
            yield TimedFrame(frame, time, time + length)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        pixels = 0
        for packet in self.stream.container.demux(self.stream):
            decoded = packet.decode()
            _check_picture(self.path, self.stream.codec_context)  # which may have changed its mind
            for frame in decoded:
                pixels += max(frame.width * frame.height, _LEAST_PIXELS)
                if pixels > _MOST_PIXELS:
                    raise UnreadableClip(self.path, _TOO_MUCH)
                yield frame


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a file and choose its video track; closed on leaving.

    Raises:
        UnreadableClip: it is missing, no regular file, no video, or declares more than it may.
    """
    try:
        if not path.is_file():
            raise UnreadableClip(path, "is not a file" if path.exists() else "does not exist")
        if not path.stat().st_size:
            raise UnreadableClip(path, "is empty")
        if reason := impossible_tables(path):
            raise UnreadableClip(path, reason)
        # "file:" so that no name is taken for an address.
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", "max_pixels": _MAX_PIXELS}
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            track = _video_track(path, container)
            yield Source(path, track, _crop(path, container, track))
    except (av.FFmpegError, OSError) as error:
        if path.is_file() and cv2.haveImageReader(str(path)):
            raise UnreadableClip(path, "is a picture, not a video") from error
        raise UnreadableClip(path, f"cannot be read as a video: {error.strerror or error}") from error


def _video_track(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """The track that a player shows: moving before still, then the file's default, then the largest."""
    if container.metadata.get("major_brand", "").strip() in _PICTURE_BRANDS:
        raise UnreadableClip(path, "is a picture, not a video")
    if not container.streams.video:
        raise UnreadableClip(path, "has no video stream")
    moving = [stream for stream in container.streams.video if not stream.disposition & _STILL]
    if not moving:
        raise UnreadableClip(path, "has no video stream, only a still picture such as a cover")
    known = [stream for stream in moving if stream.codec_context is not None]
    if not known:
        raise UnreadableClip(path, "holds a video in a format that is not known: re-encode it as H.264")

    def rank(stream: av.VideoStream) -> tuple[bool, bool, int]:
        context = stream.codec_context
        return stream.frames != 1, bool(stream.disposition & Disposition.default), context.width * context.height

    chosen = max(known, key=rank)
    for stream in container.streams:
        if stream is not chosen:
            stream.discard = Discard.all
    _check_picture(path, chosen.codec_context)
    chosen.codec_context.options = {"max_pixels": _MAX_PIXELS}
    chosen.codec_context.flags |= Flags.unaligned  # else a decoder cuts the left side by multiples of 32 pixels alone
    return chosen


def _crop(path: Path, container: av.container.InputContainer, track: av.VideoStream) -> Crop:
    place = [stream.index for stream in container.streams.video].index(track.index)
    context = track.codec_context
    try:
        return declared_crop(path, container.format.name, track.id, place, context.height, context.width)
    except ValueError as error:
        raise UnreadableClip(path, str(error)) from error


def _check_picture(path: Path, context: av.VideoCodecContext) -> None:
    width, height = context.width, context.height
    bits = 12 if context.format is None else context.format.padded_bits_per_pixel
    if width * height * bits > 8 * _PICTURE_BYTES or max(width, height) > PICTURE_SIDE:
        raise UnreadableClip(
            path, f"has pictures of {width}×{height} pixels of {bits} bits, which are too large: re-encode it smaller"
        )
