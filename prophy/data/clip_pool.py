"""A pool of rendered worlds on disk, memory-mapped: rendering once is cheaper than rendering every step."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from prophy.arrays import read_npy
from prophy.data.ahead import made_ahead
from prophy.files import exclusive, write_text
from prophy.schema import read_json
from prophy.worlds import Stage, sample_clip

_MARKER, _FILES = "pool.json", ("frames.npy", "events.npy")


def _render(task: tuple[int, str, Stage]) -> tuple[np.ndarray, np.ndarray]:
    seed, split, stage = task
    clip = sample_clip(seed, split, stage=stage, lawful=seed % 2 == 0)
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

    Raises:
        ValueError: a file of it is damaged, or another process renders into the folder. One line.
    """

    def __init__(
        self, folder: Path, count: int, stage: Stage, split: str = "train", workers: int | None = None
    ) -> None:
        folder = Path(folder)
        about = {"count": count, "split": split, "stage": asdict(stage), "lawful": "every second"}
        if not _holds(folder, about):
            _fill(folder, about, (count, stage.frames, stage.height, stage.width), split, stage, workers)
        shape = (count, stage.frames, stage.height, stage.width)
        try:
            self.frames = read_npy(folder / _FILES[0], np.uint8, (*shape, 3))
            self.events = read_npy(folder / _FILES[1], np.uint8, shape)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds a damaged pool of clips ({error}): delete it") from None


def _holds(folder: Path, about: dict[str, Any]) -> bool:
    """Whether a folder's pool is that one; a marker that cannot be read marks none."""
    try:
        return bool(read_json(folder / _MARKER) == about)
    except (OSError, ValueError):
        return False


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
    write_text(folder / _MARKER, json.dumps(about))
