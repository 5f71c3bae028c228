"""Read and write clips. What is written here plays in a browser: H.264 (or VP9), yuv420p, faststart.

PyAV only: OpenCV's writer has no H.264 encoder in its wheels, and its mp4v files do not play in browsers.
"""

from __future__ import annotations

import errno
import math
import os
import secrets
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

# Tried in order. VP9 is for PyAV builds without libx264; both go into an .mp4 that browsers play.
_ENCODERS = (
    # bf=0: without B-frames the first picture's time is 0, so a browser's mediaTime is exactly frame / fps.
    ("libx264", {"preset": "veryfast", "bf": "0"}),
    ("libvpx-vp9", {"b": "0", "deadline": "realtime", "cpu-used": "5"}),
)
_CODEC_NAMES = {"libx264": "h264", "libvpx-vp9": "vp9"}
# What training data may be packed in. FFmpeg goes by content, and would follow a playlist under a video's name.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf,gif"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAX_DECODED_BYTES = 4 * 1024**3


class Clip(NamedTuple):
    """Decoded frames, uint8 RGB of shape (F, H, W, 3), and frames per second."""

    frames: np.ndarray
    fps: float


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


def read_video(path: str | Path) -> Clip:
    """Decode every frame of the first video stream.

    Returns:
        :class:`Clip`: uint8 RGB frames (F, H, W, 3) and the average frame rate in frames per second.

    Raises:
        ValueError: the file is missing, is no video, is broken, or would decode to more than 4 GiB.
    """
    path = Path(path)
    frames: list[np.ndarray] = []
    decoded_bytes = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no video stream")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format="rgb24"))
                decoded_bytes += frames[-1].nbytes
                if decoded_bytes > _MAX_DECODED_BYTES:
                    raise ValueError(f"{path} decodes to more than 4 GiB: cut it into shorter clips")
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a video: {error.strerror or error}") from error
    if not frames:
        raise ValueError(f"{path} holds no frames")
    if fps <= 0:
        raise ValueError(f"{path} does not say its frame rate")
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"{path} changes its frame size midway: re-encode it at one size")
    return Clip(np.stack(frames), fps)


def picture_size(path: str | Path) -> tuple[int, int]:
    """Height and width of a clip in pixels, without decoding it.

    Raises:
        UnreadableClip: the file is missing or is no video.
    """
    path = Path(path)
    try:
        with av.open(str(path), options={"format_whitelist": _CONTAINERS}) as container:
            if not container.streams.video:
                raise UnreadableClip(path, "has no video stream")
            stream = container.streams.video[0]
            return stream.height, stream.width
    except (av.FFmpegError, OSError) as error:
        raise UnreadableClip(path, f"cannot be read as a video: {error.strerror or error}") from error


def sample_frames(
    path: str | Path, frames: int, fps: float, height: int, width: int, *, start: float = 0.0
) -> np.ndarray:
    """The frames on show at ``start + k / fps`` seconds for ``k`` below ``frames``, at one size.

    Decoding begins at the key frame before ``start`` and ends with the last frame needed, and only the frames taken
    are held, so a long file costs no more than the piece that is read. Each is cut to the shape asked for, around its
    middle, and resized. A frame is repeated where the file has fewer a second than asked for.

    Args:
        path: MP4, MOV, Matroska, WebM, AVI and the like, whatever its name says.
        frames: how many.
        fps: frames a second of what is returned, whatever the file's own.
        height: pixels of what is returned.
        width: pixels of what is returned.
        start: seconds into the file.

    Returns:
        uint8 RGB, (F, H, W, 3).

    Raises:
        UnreadableClip: the file is missing, is no video, has no picture, is cut off or broken before the last frame
            needed, or is too short.
        ValueError: a size, count, rate or start that is out of range.
    """
    if min(frames, height, width) < 1:
        raise ValueError(f"frames={frames}, height={height} and width={width} must be at least 1")
    if not (0 < fps < math.inf and 0 <= start < math.inf):
        raise ValueError(f"fps={fps} must be above 0, and start={start} at least 0")
    path = Path(path)
    if not path.is_file():
        raise UnreadableClip(path, "is not a file" if path.exists() else "does not exist")
    taken: list[np.ndarray] = []
    seconds = 0.0
    declared = None
    problem = ""
    try:
        with av.open(str(path), options={"format_whitelist": _CONTAINERS}) as container:
            if not container.streams.video:
                raise UnreadableClip(path, "has no video stream")
            stream = container.streams.video[0]
            declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
            try:
                seconds = _take_frames(container, stream, taken, frames, fps, height, width, start)
            except av.FFmpegError as error:
                problem = f"breaks off: {error.strerror or error}"
    except (av.FFmpegError, OSError) as error:
        raise UnreadableClip(path, f"cannot be read as a video: {error.strerror or error}") from error
    if len(taken) == frames:
        return np.stack(taken)
    need = f"{frames} frames at {fps:g} a second from {start:g} s need {start + (frames - 1) / fps:.2f} s"
    if problem:
        raise UnreadableClip(path, f"{problem}; {need}")
    if seconds == 0:
        raise UnreadableClip(path, "holds no frames")
    # Containers round: half a second less than declared is no sign of a cut.
    if declared is not None and declared > seconds + 0.5:
        raise UnreadableClip(path, f"is cut off after {seconds:.2f} of {declared:.2f} s; {need}")
    raise UnreadableClip(path, f"is too short, {seconds:.2f} s; {need}")


def _take_frames(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    taken: list[np.ndarray],
    frames: int,
    fps: float,
    height: int,
    width: int,
    start: float,
) -> float:
    """Append the frames on show at the times wanted, as many as there are; returns when the last one decoded ends."""
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    origin = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
    if start > 0:
        container.seek(int((origin + start) * av.time_base), backward=True)
    # Containers keep times in whole ticks, of a millisecond in the coarsest: a frame may be on show that much early.
    times = [start + k / fps + 0.0015 for k in range(frames)]
    shown: av.VideoFrame | None = None
    picture: np.ndarray | None = None
    end = 0.0
    for number, frame in enumerate(container.decode(stream)):
        time = frame.time - origin if frame.time is not None else number / (rate or fps)
        while shown is not None and len(taken) < frames and times[len(taken)] < time:
            picture = _fitted(shown.to_ndarray(format="rgb24"), height, width) if picture is None else picture
            taken.append(picture)
        if len(taken) == frames:
            return time
        shown, picture = frame, None
        end = time + 1 / (rate or fps)
    while shown is not None and len(taken) < frames and times[len(taken)] < end + 0.0015:
        picture = _fitted(shown.to_ndarray(format="rgb24"), height, width) if picture is None else picture
        taken.append(picture)
    return end


def _fitted(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of a frame in the shape ``height`` × ``width``, resized to it."""
    old_height, old_width = frame.shape[:2]
    scale = min(old_height / height, old_width / width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (old_height - rows) // 2, (old_width - columns) // 2
    middle = np.ascontiguousarray(frame[top : top + rows, left : left + columns])
    # Averaging is the only one of OpenCV's that does not alias when it shrinks.
    return cv2.resize(middle, (width, height), interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)


def write_video(path: str | Path, frames: np.ndarray, fps: float, *, scale: int = 1, crf: int = 12) -> str:
    """Write an .mp4 that browsers play, atomically: ``path`` is either absent, the old file, or the whole new clip.

    Args:
        path: where to write; its folder must exist and its suffix must be ``.mp4``.
        frames: uint8 RGB, (F, H, W, 3).
        fps: frames per second.
        scale: whole factor the frames are enlarged by (Lanczos), so that a 64×64 clip is not blurred by the browser.
        crf: the encoder's quality, 0 (best) to 51. 12 is visually lossless for small clips.

    Returns:
        The codec written: ``"h264"``, or ``"vp9"`` where PyAV has no H.264 encoder.

    Raises:
        ValueError: wrong dtype, shape, suffix or scale, or sides that are odd after scaling (yuv420p needs even ones).
        OSError: there is no room for it.
        RuntimeError: no encoder worked, or the file written does not decode to the same number of frames.
    """
    path = Path(path)
    _check_clip(path, frames, fps, scale, crf)
    if scale > 1:
        size = (frames.shape[2] * scale, frames.shape[1] * scale)
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_LANCZOS4) for frame in frames])

    partial = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.partial.mp4")
    failures = []
    try:
        for encoder, options in _ENCODERS:
            try:
                _encode(partial, frames, fps, encoder, {**options, "crf": str(crf)})
            except (av.FFmpegError, ValueError) as error:  # PyAV: a ValueError for an encoder it was built without
                if (number := getattr(error, "errno", None)) in _NO_ROOM:
                    raise OSError(number, os.strerror(number), str(path)) from error
                failures.append(f"{encoder}: {error}")
                continue
            _probe(partial, frames)
            os.replace(partial, path)
            return _CODEC_NAMES[encoder]
    finally:
        partial.unlink(missing_ok=True)
    raise RuntimeError(f"no video encoder could write {path.name} ({'; '.join(failures)}): reinstall the av package")


def _check_clip(path: Path, frames: np.ndarray, fps: float, scale: int, crf: int) -> None:
    if path.suffix != ".mp4":
        raise ValueError(f"{path.name} must end in .mp4")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ValueError(f"frames must be uint8 (F, H, W, 3) with F ≥ 1, got {frames.dtype} {frames.shape}")
    if not 0 < fps <= 240:
        raise ValueError(f"fps={fps} must be above 0 and at most 240")
    if not isinstance(scale, int) or not 1 <= scale <= 16:
        raise ValueError(f"scale={scale} must be a whole number from 1 to 16")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf={crf} must be from 0 to 51")
    height, width = frames.shape[1] * scale, frames.shape[2] * scale
    if height % 2 or width % 2:
        raise ValueError(f"{width}×{height} has an odd side, which yuv420p cannot hold: use an even scale or crop")


def _encode(path: Path, frames: np.ndarray, fps: float, encoder: str, options: dict[str, str]) -> None:
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # Untagged files are decoded as BT.601 or BT.709 depending on the player and the size: say which it is.
        context = stream.codec_context
        context.colorspace, context.color_range = Colorspace.ITU709.value, ColorRange.MPEG.value
        context.color_primaries = context.color_trc = 1
        for frame in frames:
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            yuv = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            container.mux(stream.encode(yuv))
        container.mux(stream.encode())


def _probe(path: Path, frames: np.ndarray) -> None:
    """A player passes a broken file through silently: decode what was written before anyone is shown it."""
    try:
        written = read_video(path).frames
    except ValueError as error:
        raise RuntimeError(f"the clip just written does not play: {error}") from error
    if written.shape != frames.shape:
        raise RuntimeError(f"the clip just written decodes to {written.shape}, not {frames.shape}")
