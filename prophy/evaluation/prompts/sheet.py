"""The contact sheet: every fixed prompt's clip on one picture, none left out, for judging by eye."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prophy.generation.generate import Generation
from prophy.runs.overlay import overlay
from prophy.runs.pictures import evenly_spaced, resized
from prophy.runs.sheets import Block, Row, draw_sheet

SHOWN = 5  #: frames of each clip, evenly spaced, the first and the last among them
MAX_BYTES = 1_500_000


def clips_sheet(clips: Sequence[Generation], *, columns: int = 2, tile: int = 128, routing: bool = False) -> np.ndarray:
    """Lay the clips out, column by column: the number and prompt above, frames below, the routing beneath them.

    Args:
        clips: of one size and length.
        columns: of the sheet.
        tile: width of a frame, pixels; a whole multiple of the clip's width keeps its pixels as they are.
        routing: add a row with the strongest expert of each token.

    Returns:
        uint8 RGB ``(H', W', 3)``.

    Raises:
        ValueError: there is no routing to show.
    """
    if routing and any(clip.trace is None for clip in clips):
        raise ValueError("there is no routing to show: give a model with a branch, or leave the routing out")
    blocks = []
    for number, clip in enumerate(clips, 1):
        frames, chosen = resized(clip.frames, tile), evenly_spaced(len(clip.frames), SHOWN)
        rows = [Row(frames[chosen])]
        if routing:
            rows.append(Row(overlay(frames, clip.routing, "top1")[chosen]))
        blocks.append(Block(rows, [f"{number}. {clip.settings.prompt}"], note=f"seed {clip.settings.seed}"))
    return draw_sheet(blocks, columns)
