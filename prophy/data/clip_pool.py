"""A pool of rendered worlds on disk, memory-mapped: rendering once is cheaper than rendering every step."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from prophy.files import write_text
from prophy.phenomena import IDS
from prophy.worlds import Stage, sample_clip


def _render(task: tuple[int, str, Stage, bool]) -> tuple[np.ndarray, np.ndarray]:
    seed, split, stage, lawful = task
    clip = sample_clip(seed, split, IDS, stage, lawful)
    return clip.frames, np.any(list(clip.masks.values()), axis=0)


class ClipPool:
    """Clips ``0 .. count-1`` of a split.

    Args:
        folder: of the pool; made anew when it holds other clips.
        count: of clips.
        split: of the worlds.
        workers: processes that render.
        stage: size, length and rate of the clips.
        lawful: or each event runs by a clock that obeys no law.

    Attributes:
        frames: uint8 ``(n, F, H, W, 3)``.
        masks: bool ``(n, F, H, W)``: where any phenomenon acts.
    """

    def __init__(
        self,
        folder: Path,
        count: int,
        split: str = "train",
        workers: int = 2,
        stage: Stage = Stage(),
        lawful: bool = True,
    ) -> None:
        folder = Path(folder)
        about = {"count": count, "split": split, "lawful": lawful, **asdict(stage)}
        marker = folder / "pool.json"
        paths = folder / "frames.npy", folder / "masks.npy"
        if not marker.exists() or json.loads(marker.read_text()) != about:
            folder.mkdir(parents=True, exist_ok=True)
            marker.unlink(missing_ok=True)
            shape = (count, stage.frames, stage.height, stage.width)
            frames = np.lib.format.open_memmap(paths[0], "w+", np.uint8, (*shape, 3))
            masks = np.lib.format.open_memmap(paths[1], "w+", bool, shape)
            with ProcessPoolExecutor(workers) as executor:
                tasks = ((seed, split, stage, lawful) for seed in range(count))
                for i, (f, m) in enumerate(
                    tqdm(executor.map(_render, tasks, chunksize=16), "render", count, mininterval=5)
                ):
                    frames[i], masks[i] = f, m
            frames.flush()
            masks.flush()
            write_text(marker, json.dumps(about))
        self.frames = np.load(paths[0], mmap_mode="r")
        self.masks = np.load(paths[1], mmap_mode="r")
