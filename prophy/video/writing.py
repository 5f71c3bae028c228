"""Write clips that browsers play: H.264 (or VP9), yuv420p, faststart.

PyAV only: OpenCV's writer has no H.264 encoder in its wheels, and its mp4v files do not play in browsers.
"""

from __future__ import annotations

import errno
import os
import secrets
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from prophy.video.source import UnreadableClip, open_source

# Tried in order. VP9 is for PyAV builds without libx264; both go into an .mp4 that browsers play.
_ENCODERS = (
    # bf=0: without B-frames the first picture's time is 0, so a browser's mediaTime is exactly frame / fps.
    ("libx264", {"preset": "veryfast", "bf": "0"}),
    ("libvpx-vp9", {"b": "0", "deadline": "realtime", "cpu-used": "5"}),
)
_CODEC_NAMES = {"libx264": "h264", "libvpx-vp9": "vp9"}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        with open_source(path) as source:
            sizes = [(frame.height, frame.width) for frame, _, _ in source.frames()]
    except UnreadableClip as error:
        raise RuntimeError(f"the clip just written does not play: {error}") from error
    if len(sizes) != len(frames) or set(sizes) != {frames.shape[1:3]}:
        raise RuntimeError(f"the clip just written decodes to {len(sizes)} frames, not {len(frames)}")
