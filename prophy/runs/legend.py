"""The strip beneath a picture that says what its colours mean. Knows colours and words, nothing of routing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Rgb = tuple[int, int, int]

_INK, _GREY, _PAPER = (34, 34, 34), (110, 110, 110), (255, 255, 255)
_REGULAR, _SEMIBOLD = 400, 600
_HEADING_LINES = 2


@dataclass(frozen=True)
class Entry:
    """What one colour, or one scale of colours, stands for.

    Attributes:
        text: a few words.
        colours: RGB, left to right: one is drawn as a square, more as a bar that runs through them.
    """

    text: str
    colours: tuple[Rgb, ...]


def strip(entries: Sequence[Entry], width: int, *, headings: Sequence[str] = (), text_px: int = 12) -> np.ndarray:
    """Draw a legend. A heading may take two lines; text that still does not fit ends in "…".

    Args:
        entries: in reading order; columns are as wide as the widest.
        width: pixels.
        headings: lines above the entries, the first one in bold.
        text_px: size of the letters; all distances follow it.

    Returns:
        uint8 RGB (H, ``width``, 3) with H even, as video files need it.
    """
    line, margin, gap = round(1.6 * text_px), text_px // 2, text_px // 2
    marks = [text_px if len(entry.colours) == 1 else 5 * text_px for entry in entries]
    widest = max((mark + gap + _width(e.text, text_px) for mark, e in zip(marks, entries, strict=True)), default=1)
    column = min(widest + 2 * gap, width - 2 * margin)
    columns = max(1, (width - 2 * margin + 2 * gap) // column)
    heads = []
    for i, text in enumerate(headings):
        ink, weight = (_INK, _SEMIBOLD) if i == 0 else (_GREY, _REGULAR)
        heads += [(part, ink, weight) for part in _wrapped(text, width - 2 * margin, text_px, weight)]
    rows = len(heads) + -(-len(entries) // columns)
    height = rows * line + margin
    image = np.full((height + height % 2, width, 3), _PAPER, np.uint8)

    for i, (text, ink, weight) in enumerate(heads):
        _write(image, text, (margin, margin // 2 + line * i), width - 2 * margin, text_px, ink, weight)
    for i, (entry, mark) in enumerate(zip(entries, marks, strict=True)):
        x, y = margin + column * (i % columns), margin // 2 + line * (len(heads) + i // columns)
        _mark(image, entry.colours, (x, y + (line - text_px) // 2), (mark, text_px))
        _write(image, entry.text, (x + mark + gap, y), column - mark - gap, text_px, _INK, _REGULAR)
    return image


def _mark(image: np.ndarray, colours: tuple[Rgb, ...], at: tuple[int, int], size: tuple[int, int]) -> None:
    (x, y), (width, height) = at, size
    bar = np.array([colours], np.uint8)
    if len(colours) > 1:
        places = np.linspace(0, len(colours) - 1, width)
        channels = [np.interp(places, np.arange(len(colours)), bar[0, :, c]) for c in range(3)]
        bar = np.stack(channels, axis=-1)[None].round().astype(np.uint8)
    room = image[y : y + height, x : x + width]
    room[:] = np.broadcast_to(bar, (height, width, 3))[:, : room.shape[1]]
    cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), _GREY, 1)


def _write(image: np.ndarray, text: str, at: tuple[int, int], room: int, text_px: int, ink: Rgb, weight: int) -> None:
    """One line of text, its line's upper left corner at ``at``."""
    if _width(text, text_px, weight) > room:
        keep = bisect_right(range(len(text)), room, key=lambda n: _width(text[:n] + "…", text_px, weight)) - 1
        text = text[: max(0, keep)].rstrip() + "…"
    baseline = at[1] + round(1.15 * text_px)
    cv2.putText(image, text, (at[0], baseline), ink, cv2.FontFace("sans"), text_px, weight)


def _wrapped(text: str, room: int, text_px: int, weight: int) -> list[str]:
    """Lines broken between words; what is too much for the last one is left for it to cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and len(lines) < _HEADING_LINES and _width(longer, text_px, weight) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _width(text: str, text_px: int, weight: int = _REGULAR) -> int:
    return cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace("sans"), text_px, weight)[2]
