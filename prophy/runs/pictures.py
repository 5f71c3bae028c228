"""What all drawn pictures share: one font, one word wrapper, one way to enlarge frames, one writer of PNG and of GIF.

Pictures are uint8 RGB (H, W, 3).
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from prophy.files import replacing

Rgb = tuple[int, int, int]

INK, GREY, PAPER = (34, 34, 34), (110, 110, 110), (255, 255, 255)
REGULAR, SEMIBOLD = 400, 600
TEXT_PX = 13  #: size of the letters, unless told otherwise
_GIF_TICK = 10  # milliseconds: a GIF counts in hundredths of a second
_SMALL = (cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)  # half the size


def blank(height: int, width: int) -> np.ndarray:
    """An empty picture."""
    return np.full((height, width, 3), PAPER, np.uint8)


# --- text -------------------------------------------------------------------------------------------------------------


def line_height(text_px: int) -> int:
    """Pixels from one line of text to the next."""
    return round(1.6 * text_px)


def text_width(text: str, text_px: int = TEXT_PX, weight: int = REGULAR) -> int:
    """Pixels that a line of text takes."""
    return cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace("sans"), text_px, weight)[2]


def wrapped(
    text: str, room: int, text_px: int = TEXT_PX, weight: int = REGULAR, max_lines: int | None = None
) -> list[str]:
    """Lines of at most ``room`` pixels, broken between words.

    A word that is wider, and what is too much for ``max_lines``, is left for :func:`draw_text` to cut.
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        may_break = lines[-1] and (max_lines is None or len(lines) < max_lines)
        if may_break and text_width(longer, text_px, weight) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def draw_text(
    picture: np.ndarray,
    text: str,
    at: tuple[int, int],
    room: int,
    text_px: int = TEXT_PX,
    ink: Rgb = INK,
    weight: int = REGULAR,
) -> None:
    """Write one line whose upper left corner is ``at`` (x, y); what does not fit ends in "…"."""
    if text_width(text, text_px, weight) > room:
        keep = bisect_right(range(len(text)), room, key=lambda n: text_width(text[:n] + "…", text_px, weight)) - 1
        text = text[: max(0, keep)].rstrip() + "…"
    baseline = at[1] + round(1.15 * text_px)
    cv2.putText(picture, text, (at[0], baseline), ink, cv2.FontFace("sans"), text_px, weight)


# --- frames -----------------------------------------------------------------------------------------------------------


def resized(frames: np.ndarray, width: int) -> np.ndarray:
    """Frames (F, H, W, 3) at another width: pixel by pixel at a whole multiple, else smoothly."""
    if width == frames.shape[2]:
        return frames
    if width % frames.shape[2] == 0:
        method = cv2.INTER_NEAREST
    else:
        method = cv2.INTER_LANCZOS4 if width > frames.shape[2] else cv2.INTER_AREA
    size = (width, round(width * frames.shape[1] / frames.shape[2]))
    return np.stack([cv2.resize(frame, size, interpolation=method) for frame in frames])


def evenly_spaced(num_frames: int, count: int) -> np.ndarray:
    """Numbers of ``count`` frames, or of all if there are fewer, the first and the last among them."""
    return np.unique(np.linspace(0, num_frames - 1, min(count, num_frames)).round().astype(int))


# --- files ------------------------------------------------------------------------------------------------------------


def png_bytes(picture: np.ndarray) -> bytes:
    """A picture as a PNG file, compressed as far as the format goes."""
    return cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]), _SMALL)[1].tobytes()


def write_png(path: Path, picture: np.ndarray, max_bytes: int | None = None) -> int:
    """Write a PNG, whole or not at all; returns its size in bytes.

    Args:
        path: ends in ``.png``; its folder is made.
        picture: uint8 RGB (H, W, 3).
        max_bytes: colours are rounded a little where that keeps the file below this size. The lowest bits of a
            generated clip are noise, which PNG cannot compress.

    Raises:
        ValueError: not a ``.png``, or not below ``max_bytes`` even with rounded colours.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"{path.name} is not a .png: name the picture something.png")
    data = png_bytes(picture)
    for bits in (1, 2, 3):
        if max_bytes is None or len(data) < max_bytes:
            break
        step = 1 << bits
        levels = np.minimum((np.arange(256) + step // 2) // step * step, 255).astype(np.uint8)
        data = png_bytes(cv2.LUT(picture, levels))
    if max_bytes is not None and len(data) >= max_bytes:
        raise ValueError(f"the picture takes {len(data)} bytes, not below {max_bytes}: make it smaller")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return len(data)


def write_gif(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write an animated GIF that repeats without end, whole or not at all.

    Each frame has 256 colours of its own. A GIF counts in hundredths of a second: some frames are shown a little
    longer, so that the whole takes as long as the clip. Above 50 frames a second it takes longer: browsers show no
    frame for less than 20 ms.

    Args:
        path: ends in ``.gif``.
        frames: uint8 RGB (F, H, W, 3).
        fps: frames a second.

    Raises:
        ValueError: not a ``.gif``.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".gif":
        raise ValueError(f"{path.name} is not a .gif: name it something.gif")
    # OpenCV's writer dithers; the colours here are what the picture is about.
    pictures = [
        Image.fromarray(np.ascontiguousarray(frame)).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        for frame in frames
    ]
    ends = np.round(np.arange(len(frames) + 1) * 1000 / fps / _GIF_TICK).astype(int) * _GIF_TICK
    durations = np.maximum(np.diff(ends), 2 * _GIF_TICK).tolist()  # browsers show a shorter one for 100 ms
    with replacing(path, shared=True) as temporary:
        pictures[0].save(
            temporary, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=False
        )
