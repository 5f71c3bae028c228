"""A contact sheet of worlds: frames of clips with the outline of their masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from prophy.phenomena import IDS, by_id
from prophy.worlds.sample import WorldClip, sample_clip


def clip_row(clip: WorldClip, zoom: int = 2, columns: tuple[int, ...] = (0, 3, 6, 9, 12, 16)) -> np.ndarray:
    """One clip as a row of frames, masks outlined in their phenomenon's colour, the caption above. uint8 RGB."""
    tiles = []
    for f in columns:
        size = clip.frames.shape[1] * zoom
        tile = cv2.resize(clip.frames[f], (size, size), interpolation=cv2.INTER_CUBIC)
        for phenomenon, mask in clip.masks.items():
            hexadecimal = by_id(phenomenon).colour.lstrip("#")
            colour = tuple(int(hexadecimal[i : i + 2], 16) for i in (0, 2, 4))
            big = cv2.resize(mask[f].astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST)
            outlines, _ = cv2.findContours(big, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
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
    path: str | Path, seed: int = 0, phenomenon: str | None = None, split: str = "train", rows: int = 18
) -> Path:
    """Write a PNG of ``rows`` clips in two columns: every phenomenon in turn, or one of them.

    Raises:
        KeyError: unknown phenomenon.
        OSError: the file cannot be written.
    """
    pool = IDS if phenomenon is None else (by_id(phenomenon).id,)
    clips = []
    for i in range(rows):
        alone = phenomenon is not None or i < len(IDS)
        clips.append(sample_clip(seed + i, split, (pool[i % len(pool)],) if alone else pool))
    pictures = [clip_row(clip) for clip in clips]
    if len(pictures) % 2:
        pictures.append(np.full_like(pictures[0], 255))
    sheet = np.concatenate([np.concatenate(pictures[i::2], 0) for i in range(2)], 1)
    path = Path(path)
    if not cv2.imwrite(str(path), sheet[..., ::-1]):
        raise OSError(f"cannot write {path}: choose a folder that exists and ends in .png")
    return path
