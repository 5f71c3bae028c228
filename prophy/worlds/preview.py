"""A contact sheet of worlds: frames of clips with the outline of their masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from prophy.phenomena import IDS, by_id
from prophy.worlds.sample import WorldClip, sample_clip
from prophy.worlds.stage import Stage

_TILE = 128  # rows of a frame on the sheet
_ROW = 780  # columns of a clip's frames, about


def clip_row(clip: WorldClip) -> np.ndarray:
    """One clip as a row of frames, masks outlined in their phenomenon's colour, the caption above. uint8 RGB."""
    stage = clip.stage
    size = (round(_TILE * stage.width / stage.height), _TILE)
    enlarging = cv2.INTER_AREA if stage.height > _TILE else cv2.INTER_CUBIC
    tiles = []
    for f in np.linspace(0, stage.frames - 1, max(4, _ROW // size[0])).round().astype(int):
        tile = cv2.resize(clip.frames[f], size, interpolation=enlarging)
        for phenomenon, mask in clip.masks.items():
            hexadecimal = by_id(phenomenon).colour.lstrip("#")
            colour = tuple(int(hexadecimal[i : i + 2], 16) for i in (0, 2, 4))
            shown = cv2.resize(mask[f].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            outlines, _ = cv2.findContours(shown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(tile, outlines, -1, (255, 255, 255), 2)
            cv2.drawContours(tile, outlines, -1, colour, 1)
        tiles.append(cv2.copyMakeBorder(tile, 0, 0, 0, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255)))
    row = np.concatenate(tiles, 1)
    head = np.full((16, row.shape[1], 3), 255, np.uint8)
    names = ", ".join(by_id(e.phenomenon).name for e in clip.scenario.events)
    cv2.putText(
        head, f"{names}: {clip.caption}"[:130], (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (30, 30, 30), 1, cv2.LINE_AA
    )
    return np.concatenate([head, row], 0)


def write_contact_sheet(
    path: str | Path,
    seed: int = 0,
    phenomenon: str | None = None,
    split: str = "train",
    rows: int = 18,
    stage: Stage = Stage(),
    lawful: bool = True,
) -> Path:
    """Write a PNG of ``rows`` clips in two columns: every phenomenon in turn, or one of them.

    Raises:
        KeyError: unknown phenomenon.
        OSError: the file cannot be written.
    """
    pool = IDS if phenomenon is None else (by_id(phenomenon).id,)
    pictures = []
    for i in range(rows):
        alone = phenomenon is not None or i < len(IDS)
        shown = (pool[i % len(pool)],) if alone else pool
        pictures.append(clip_row(sample_clip(seed + i, split, shown, stage, lawful)))
    if len(pictures) % 2:
        pictures.append(np.full_like(pictures[0], 255))
    sheet = np.concatenate([np.concatenate(pictures[i::2], 0) for i in range(2)], 1)
    path = Path(path)
    if not cv2.imwrite(str(path), sheet[..., ::-1]):
        raise OSError(f"cannot write {path}: choose a folder that exists and ends in .png")
    return path
