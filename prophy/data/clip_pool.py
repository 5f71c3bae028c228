"""A pool of rendered worlds on disk, memory-mapped: rendering once is cheaper than rendering every step."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from prophy.data.ahead import made_ahead
from prophy.files import write_text
from prophy.worlds import Stage, sample_clip


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
    """

    def __init__(
        self, folder: Path, count: int, stage: Stage, split: str = "train", workers: int | None = None
    ) -> None:
        folder = Path(folder)
        about = {"count": count, "split": split, "stage": asdict(stage), "lawful": "every second"}
        marker = folder / "pool.json"
        paths = folder / "frames.npy", folder / "events.npy"
        if not marker.exists() or json.loads(marker.read_text()) != about:
            folder.mkdir(parents=True, exist_ok=True)
            marker.unlink(missing_ok=True)
            shape = (count, stage.frames, stage.height, stage.width)
            frames = np.lib.format.open_memmap(paths[0], "w+", np.uint8, (*shape, 3))
            events = np.lib.format.open_memmap(paths[1], "w+", np.uint8, shape)
            tasks = ((seed, split, stage) for seed in range(count))
            made = made_ahead(_render, tasks, workers or os.cpu_count() or 1)
            for i, (f, e) in enumerate(tqdm(made, "render", count, mininterval=5)):
                frames[i], events[i] = f, e
            frames.flush()
            events.flush()
            write_text(marker, json.dumps(about))
        self.frames = np.load(paths[0], mmap_mode="r")
        self.events = np.load(paths[1], mmap_mode="r")
