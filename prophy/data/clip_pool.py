"""A pool of rendered worlds on disk, memory-mapped: rendering once is cheaper than rendering every step."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from prophy.arrays import read_npy
from prophy.data.ahead import made_ahead
from prophy.files import exclusive, write_text
from prophy.phenomena import IDS
from prophy.schema import read_object
from prophy.worlds import Drawn, Stage, WorldSet, refuse_redrawn

_MARKER, _FILES, _DRAWN = "pool.json", ("frames.npy", "events.npy"), "drawn"
_LOOKED_AT = 4  # clips of an older release's pool that are rendered again

log = logging.getLogger(__name__)


def _sets(split: str, stage: Stage) -> tuple[WorldSet, WorldSet]:
    """Lawful clips, of even seeds, and others."""
    return WorldSet(IDS, split, stage), WorldSet(IDS, split, stage, lawful=False)


def _render(task: tuple[int, str, Stage]) -> tuple[np.ndarray, np.ndarray]:
    seed, split, stage = task
    clip = _sets(split, stage)[seed % 2].clip(seed)
    events = np.zeros(clip.frames.shape[:3], np.uint8)
    for number, mask in enumerate(clip.masks.values(), 1):
        events[mask] = number
    return clip.frames, events


class ClipPool:
    """Clips ``0 .. count-1`` of a split; every second one is by clocks that obey no law.

    Args:
        folder: kept there; rendered anew where it holds another pool.
        count: of clips.
        stage: their size, length and rate.
        split: see :data:`~prophy.worlds.sample.SPLITS`.
        workers: processes that render; default: one a core.

    Attributes:
        frames: uint8 ``(n, F, H, W, 3)``.
        events: uint8 ``(n, F, H, W)``: 1 and 2 where the first and second event act, 0 elsewhere.
        drawn: digest of what the worlds drew; empty where an older release noted nothing.

    Raises:
        ValueError: a file of it is damaged, the worlds draw its clips otherwise now, or another process renders into
            the folder. One line.
    """

    def __init__(
        self, folder: Path, count: int, stage: Stage, split: str = "train", workers: int | None = None
    ) -> None:
        folder = Path(folder)
        about = {"count": count, "split": split, "stage": asdict(stage), "lawful": "every second"}
        held = _noted(folder)
        if {name: value for name, value in held.items() if name != _DRAWN} != about:
            _fill(folder, about, (count, stage.frames, stage.height, stage.width), split, stage, workers)
            held = _noted(folder)
        else:
            refuse_redrawn(folder, _drawn_of(folder, held), *_sets(split, stage), captions=False)
        drawn = _drawn_of(folder, held)
        shape = (count, stage.frames, stage.height, stage.width)
        try:
            self.frames = read_npy(folder / _FILES[0], np.uint8, (*shape, 3))
            self.events = read_npy(folder / _FILES[1], np.uint8, shape)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds a damaged pool of clips ({error}): delete it") from None
        self.drawn = "" if drawn is None else drawn.pictures
        if drawn is None:
            self._look_again(folder, split, stage)

    def _look_again(self, folder: Path, split: str, stage: Stage) -> None:
        """Render a few clips again, of a pool that says nothing of what was drawn, and name one that is another now."""
        for seed in range(min(_LOOKED_AT, len(self.frames))):
            if not np.array_equal(_render((seed, split, stage))[0], self.frames[seed]):
                log.warning(
                    "%s was rendered by an older release, and clip %d is another in this release's worlds, or on this "
                    "machine: delete it to render it anew",
                    folder,
                    seed,
                )
                return


def _drawn_of(folder: Path, held: dict[str, Any]) -> Drawn | None:
    try:
        return Drawn.from_record(held.get(_DRAWN))
    except ValueError as error:
        raise ValueError(f"{folder / _MARKER} is damaged ({error}): delete {folder}") from None


def _noted(folder: Path) -> dict[str, Any]:
    """What a folder's marker says; one that cannot be read says nothing."""
    try:
        return read_object(folder / _MARKER, "delete it")
    except (OSError, ValueError):
        return {}


@exclusive("rendering clips", folder="folder")
def _fill(
    folder: Path, about: dict[str, Any], shape: tuple[int, ...], split: str, stage: Stage, workers: int | None
) -> None:
    (folder / _MARKER).unlink(missing_ok=True)
    for name in _FILES:  # a pipe of that name would be waited for
        (folder / name).unlink(missing_ok=True)
    frames = np.lib.format.open_memmap(folder / _FILES[0], "w+", np.uint8, (*shape, 3))
    events = np.lib.format.open_memmap(folder / _FILES[1], "w+", np.uint8, shape)
    tasks = ((seed, split, stage) for seed in range(shape[0]))
    made = made_ahead(_render, tasks, workers or os.cpu_count() or 1)
    for i, (f, e) in enumerate(tqdm(made, "render", shape[0], mininterval=5)):
        frames[i], events[i] = f, e
    frames.flush()
    events.flush()
    drawn = Drawn.by(*_sets(split, stage)).record()
    write_text(folder / _MARKER, json.dumps({**about, _DRAWN: drawn}))
