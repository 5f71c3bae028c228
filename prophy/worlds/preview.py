"""A contact sheet of worlds: frames of clips with the outline of their masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from prophy.phenomena import IDS, by_id
from prophy.runs.overlay import rgb
from prophy.runs.pictures import evenly_spaced, resized, write_png
from prophy.runs.sheets import Block, Row, draw_sheet
from prophy.worlds.pairs import showing
from prophy.worlds.sample import WorldClip, sample_clip
from prophy.worlds.stage import Stage
from prophy.worlds.twins import TWINS, Broken


def clip_row(clip: WorldClip, height: int, wide: int, label: str = "") -> Row:
    """Frames of one clip, masks outlined in their phenomenon's colour.

    Args:
        clip: of the worlds.
        height: of a frame in the sheet, pixels.
        wide: square frames that are shown, or fewer that are wide, but four at least.
        label: what stands to the left.
    """
    aspect = clip.stage.width / clip.stage.height
    chosen = evenly_spaced(len(clip.frames), max(4, round(wide / aspect)))
    tiles = resized(clip.frames[chosen], round(height * aspect)).copy()
    for f, tile in zip(chosen, tiles, strict=True):
        for phenomenon, mask in clip.masks.items():
            large = cv2.resize(mask[f].astype(np.uint8), tile.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            outlines, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(tile, outlines, -1, (255, 255, 255), 2)
            cv2.drawContours(tile, outlines, -1, rgb(by_id(phenomenon).colour), 1)
    return Row(list(tiles), label)


def clip_block(clip: WorldClip) -> Block:
    """One clip as a row of frames, its phenomena and caption above."""
    names = ", ".join(by_id(event.phenomenon).name for event in clip.scenario.events)
    return Block([clip_row(clip, 128, 6)], [names, clip.caption])


def twins_block(seed: int, split: str, phenomenon: str, stage: Stage) -> Block:
    """One clip of one event lawful, by a clock that obeys no law, and breaking each of its laws: a row each."""
    lawful, unlawful = (sample_clip(seed, split, (phenomenon,), stage, choice) for choice in (True, False))
    (event,) = lawful.scenario.events
    rows = [clip_row(lawful, 96, 9, "lawful"), clip_row(unlawful, 96, 9, "by an unlawful clock")]
    seen = []
    for law, twin in TWINS[phenomenon, event.variant].items():
        clip = sample_clip(seed, split, (phenomenon,), stage, broken=Broken(law))
        rows.append(clip_row(clip, 96, 9, f"not: {law}"))
        seen.append(f"Not {law}: {twin.seen}.")
    return Block(rows, [f"{by_id(phenomenon).name} ({event.variant})", lawful.caption, *seen])


def write_contact_sheet(
    path: str | Path,
    seed: int = 0,
    phenomenon: str | None = None,
    split: str = "train",
    clips: int = 18,
    stage: Stage = Stage(),
    lawful: bool = True,
) -> Path:
    """Write a PNG of clips in two columns: every phenomenon in turn, or one of them.

    Args:
        path: the picture.
        seed: of the first clip.
        phenomenon: only this one.
        split: of the worlds.
        clips: how many.
        stage: their size, length and rate.
        lawful: or each event runs by a clock that obeys no law.

    Raises:
        KeyError: unknown phenomenon.
        ValueError: the name does not end in ``.png``.
        OSError: the file cannot be written.
    """
    pool = IDS if phenomenon is None else (by_id(phenomenon).id,)
    blocks = []
    for i in range(clips):
        alone = phenomenon is not None or i < len(IDS)
        shown = (pool[i % len(pool)],) if alone else pool
        blocks.append(clip_block(sample_clip(seed + i, split, shown, stage, lawful)))
    write_png(Path(path), draw_sheet(blocks, columns=2))
    return Path(path)


def write_twins_sheet(
    path: str | Path, seed: int = 0, phenomenon: str | None = None, split: str = "train", stage: Stage = Stage()
) -> Path:
    """Write a PNG of every scene, or of those of one phenomenon: lawful, unlawful, and each law's impossible twin.

    Args:
        path: the picture.
        seed: of the first clip that is considered; of each scene the next one is shown.
        phenomenon: only this one.
        split: of the worlds, but not ``combinations``, whose clips show two phenomena.
        stage: size, length and rate of the clips.

    Raises:
        KeyError, ValueError, OSError: as of :func:`write_contact_sheet`.
    """
    pool = IDS if phenomenon is None else (by_id(phenomenon).id,)
    blocks = [
        twins_block(first, split, one, stage)
        for one in pool
        for ((first, _),) in showing(split, 1, (one,), first=seed).values()
    ]
    write_png(Path(path), draw_sheet(blocks))
    return Path(path)
