"""Contact sheets: frames side by side, in rows one beneath the other, with words above and beside them.

Every sheet of this program is drawn here, from the same parts: a run's, the fixed prompts', an annotation's, the
worlds', the figures'. Pictures and frames are uint8 RGB, (H, W, 3) and (F, H, W, 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prophy.routing.trace import RoutingTrace
from prophy.runs.legend import Entry, strip
from prophy.runs.overlay import OverlayMode, legend_entries, overlay
from prophy.runs.pictures import (
    GREY,
    INK,
    REGULAR,
    SEMIBOLD,
    TEXT_PX,
    blank,
    draw_text,
    evenly_spaced,
    line_height,
    resized,
    text_width,
    wrapped,
)

GAP, MARGIN = 2, 12  #: pixels between pictures, and around a block


@dataclass(frozen=True)
class Row:
    """Pictures side by side, all of one size, and what stands to the left of them."""

    pictures: Sequence[np.ndarray]
    label: str = ""


@dataclass(frozen=True)
class Block:
    """One part of a sheet.

    Attributes:
        rows: of as many pictures each; a block without any is text alone.
        headings: paragraphs above, the first in bold, the others in grey.
        note: a word in grey at the right end of the first heading.
        titles: above the pictures, one for each.
        legend: what the colours mean, beneath.
    """

    rows: Sequence[Row] = ()
    headings: Sequence[str] = ()
    note: str = ""
    titles: Sequence[str] = ()
    legend: Sequence[Entry] = ()


def draw_sheet(blocks: Sequence[Block], columns: int = 1) -> np.ndarray:
    """Lay blocks out, column by column; beside each other they are padded to one size, their pictures in line.

    Raises:
        ValueError: no blocks, or fewer than one column.
    """
    if not blocks or columns < 1:
        raise ValueError(f"{len(blocks)} blocks in {columns} columns make no sheet: give one of each at least")
    label = max((text_width(row.label) + 2 * MARGIN for b in blocks for row in b.rows if row.label), default=0)
    width = label + max(max((_row_width(row) for b in blocks for row in b.rows), default=0), 160)
    lines = max(len(_heading_lines(block, width)) for block in blocks) if columns > 1 else 0
    cells = [_drawn(block, width, label, lines) for block in blocks]
    per_column = -(-len(cells) // columns)
    parts = [cells[i : i + per_column] for i in range(0, len(cells), per_column)]
    heights = [max(len(cell) for cell in cells)] * len(cells) if columns > 1 else [len(cell) for cell in cells]
    total = MARGIN + sum(height + MARGIN for height in heights[:per_column])
    sheet = blank(total, MARGIN + len(parts) * (width + MARGIN))
    for c, column in enumerate(parts):
        x, y = MARGIN + c * (width + MARGIN), MARGIN
        for cell, height in zip(column, heights, strict=False):
            sheet[y : y + len(cell), x : x + width] = cell
            y += height + MARGIN
    return sheet


def contact_sheet(
    frames: np.ndarray,
    trace: RoutingTrace,
    mode: OverlayMode = "phenomena",
    *,
    index: int | None = None,
    step: int = -1,
    opacity: float | None = None,
    columns: int = 6,
    tile: int = 160,
) -> np.ndarray:
    """One picture of a run: evenly spaced frames above, the same frames with the routing below, and a legend.

    Args:
        frames: of the clip.
        trace, mode, index, step, opacity: see :func:`prophy.runs.overlay.overlay`.
        columns: frames shown, at most F.
        tile: width of one frame in the sheet, pixels.

    Raises:
        ValueError: see :func:`prophy.runs.overlay.overlay`.
    """
    enlarged = resized(frames, tile)
    laid = overlay(enlarged, trace, mode, index=index, step=step, opacity=opacity)
    chosen = evenly_spaced(len(frames), columns)
    entries = legend_entries(trace, mode, index=index, step=step)
    return draw_sheet([Block([Row(enlarged[chosen]), Row(laid[chosen])], legend=entries)])


def _row_width(row: Row) -> int:
    return sum(picture.shape[1] + GAP for picture in row.pictures) - GAP


def _heading_lines(block: Block, width: int) -> list[tuple[str, tuple[int, int, int], int]]:
    """Every line with its ink and weight."""
    lines = []
    for i, text in enumerate(block.headings):
        ink, weight = (INK, SEMIBOLD) if i == 0 else (GREY, REGULAR)
        room = width - (text_width(block.note) + MARGIN if i == 0 and block.note else 0)
        lines += [(line, ink, weight) for line in wrapped(text, room, weight=weight)]
    return lines


def _drawn(block: Block, width: int, label: int, lines: int) -> np.ndarray:
    """A block, ``width`` pixels wide, its pictures ``label`` pixels from the left; ``lines`` of heading at least."""
    step = line_height(TEXT_PX)
    heading = _heading_lines(block, width)
    parts = [blank(max(len(heading), lines) * step, width)]
    for i, (text, ink, weight) in enumerate(heading):
        draw_text(parts[0], text, (0, i * step), width, ink=ink, weight=weight)
    if block.note:
        at = width - text_width(block.note)
        draw_text(parts[0], block.note, (at, 0), width - at, ink=GREY)
    if block.titles:
        parts.append(_titles(block, width, label))
    for row in block.rows:
        parts.append(_pictures(row, width, label))
    if block.legend:
        parts.append(strip(block.legend, width))
    return np.concatenate(parts)


def _titles(block: Block, width: int, label: int) -> np.ndarray:
    picture, x = blank(line_height(TEXT_PX), width), label
    for title, shown in zip(block.titles, block.rows[0].pictures, strict=True):
        draw_text(picture, title, (x, 0), shown.shape[1], ink=GREY)
        x += shown.shape[1] + GAP
    return picture


def _pictures(row: Row, width: int, label: int) -> np.ndarray:
    height = len(row.pictures[0])
    picture, x = blank(height + GAP, width), label
    for shown in row.pictures:
        picture[:height, x : x + shown.shape[1]] = shown
        x += shown.shape[1] + GAP
    if row.label:
        draw_text(picture, row.label, (0, (height - line_height(TEXT_PX)) // 2), label)
    return picture
