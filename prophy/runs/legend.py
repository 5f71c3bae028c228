"""The strip beneath a picture that says what its colours mean. Knows colours and words, nothing of routing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from prophy.runs.pictures import (
    GREY,
    INK,
    REGULAR,
    SEMIBOLD,
    Rgb,
    blank,
    draw_text,
    line_height,
    text_width,
    wrapped,
)

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
    line, margin, gap = line_height(text_px), text_px // 2, text_px // 2
    marks = [text_px if len(entry.colours) == 1 else 5 * text_px for entry in entries]
    widest = max((mark + gap + text_width(e.text, text_px) for mark, e in zip(marks, entries, strict=True)), default=1)
    column = min(widest + 2 * gap, width - 2 * margin)
    columns = max(1, (width - 2 * margin + 2 * gap) // column)
    heads = []
    for i, text in enumerate(headings):
        ink, weight = (INK, SEMIBOLD) if i == 0 else (GREY, REGULAR)
        heads += [(part, ink, weight) for part in wrapped(text, width - 2 * margin, text_px, weight, _HEADING_LINES)]
    rows = len(heads) + -(-len(entries) // columns)
    height = rows * line + margin
    image = blank(height + height % 2, width)

    for i, (text, ink, weight) in enumerate(heads):
        draw_text(image, text, (margin, margin // 2 + line * i), width - 2 * margin, text_px, ink, weight)
    for i, (entry, mark) in enumerate(zip(entries, marks, strict=True)):
        x, y = margin + column * (i % columns), margin // 2 + line * (len(heads) + i // columns)
        _mark(image, entry.colours, (x, y + (line - text_px) // 2), (mark, text_px))
        draw_text(image, entry.text, (x + mark + gap, y), column - mark - gap, text_px)
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
    cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), GREY, 1)
