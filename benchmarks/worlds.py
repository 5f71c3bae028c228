"""Run with: python benchmarks/worlds.py

How many synthetic clips a second are made: at the embedded model's first size for each phenomenon, and of the training
mixture at every size of interest, lawful and unlawful. Writes the tables to worlds.md beside it. The limit is the same
renderer with nothing on the stage: backdrop, averaging down, no simulation, no shapes. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from prophy.phenomena import IDS, by_id
from prophy.worlds import Scenario, Stage, render, sample_clip
from prophy.worlds.stage import BACKGROUNDS

TARGET = 50  #: clips a second of the training mixture, two processes, at the first size
STAGES = (
    Stage(),
    Stage(96, 64),
    Stage(96, 64, 33, 16),
    Stage(128, 80),
    Stage(192, 128),
    Stage(416, 240, 81, 16),
    Stage(832, 480, 81, 16),
)
LIMIT = "the backdrop only (the limit)"


def make_clip(seed: int, phenomena: tuple[str, ...] = IDS, stage: Stage = Stage(), lawful: bool = True) -> int:
    """Make a clip and throw it away: what is timed is the making, not the way between processes."""
    return int(sample_clip(seed, "train", phenomena, stage, lawful).frames[-1, 0, 0, 0])


def make_backdrop(seed: int, stage: Stage = Stage()) -> int:
    """The same renderer with no event."""
    setting = list(BACKGROUNDS)[seed % len(BACKGROUNDS)]
    return int(render(Scenario((), setting), np.random.default_rng(seed), stage=stage)[0][-1, 0, 0, 0])


def clips_per_second(executor: ProcessPoolExecutor, make: Callable[[int], int], clips: int) -> float:
    """Speed of all processes together."""
    begin = time.perf_counter()
    done = sum(1 for _ in executor.map(make, range(clips), chunksize=max(1, clips // 32)))
    return done / (time.perf_counter() - begin)


def clips_of(stage: Stage, clips: int) -> int:
    """So many of a larger stage that every row takes about as long, four at least."""
    pixels = stage.width * stage.height * stage.frames / (64 * 64 * 17)
    return max(4, round(clips / pixels))


def measure(clips: int, repeats: int, workers: int) -> dict[tuple[Stage, str], float]:
    """Median speed of every row; the rounds go through all rows, so that a slow moment does not hit one alone."""
    makers: dict[tuple[Stage, str], Callable[[int], int]] = {}
    for stage in STAGES:
        makers[stage, LIMIT] = partial(make_backdrop, stage=stage)
        makers[stage, "lawful"] = partial(make_clip, stage=stage)
        makers[stage, "unlawful"] = partial(make_clip, stage=stage, lawful=False)
    makers |= {(Stage(), by_id(name).name): partial(make_clip, phenomena=(name,)) for name in IDS}
    speeds: dict[tuple[Stage, str], list[float]] = {row: [] for row in makers}
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(1,)) as executor:
        for make in makers.values():
            clips_per_second(executor, make, workers)  # warm up
        for _ in range(repeats):
            for (stage, row), make in makers.items():
                speeds[stage, row].append(clips_per_second(executor, make, clips_of(stage, clips)))
    return {row: statistics.median(values) for row, values in speeds.items()}


def tables(speeds: dict[tuple[Stage, str], float], clips: int, repeats: int, workers: int) -> str:
    """The measured speeds in Markdown."""
    mixture = speeds[Stage(), "lawful"]
    verdict = "met" if mixture >= TARGET else "missed"
    lines = [
        "# Speed of the synthetic worlds",
        "",
        f"`python benchmarks/worlds.py --clips {clips} --repeats {repeats} --workers {workers}`,"
        f" {datetime.now(UTC):%Y-%m-%d}.",
        f"{workers} processes, median of {repeats} rounds of {clips} clips of 64×64×17, of fewer larger ones.",
        f"Python {platform.python_version()}, NumPy {np.__version__}, OpenCV {cv2.__version__}, {platform.machine()}.",
        "",
        f"Target: {TARGET} clips a second of the training mixture at 64×64×17. {verdict.capitalize()}: {mixture:.0f}.",
        "",
        "The training mixture of all seventeen phenomena, half of the clips with two of them, clips a second:",
        "",
        "| clip | lawful | unlawful | the backdrop only |",
        "|---|---:|---:|---:|",
    ]
    for stage in STAGES:
        columns = (speeds[stage, row] for row in ("lawful", "unlawful", LIMIT))
        lines.append(f"| {stage} | {' | '.join(f'{speed:.3g}' for speed in columns)} |")
    lines += [
        "",
        "One phenomenon at a time, 64×64×17:",
        "",
        "| what is drawn | clips a second | ms a clip and process | share of the limit |",
        "|---|---:|---:|---:|",
    ]
    for row in (LIMIT, *(by_id(name).name for name in IDS)):
        speed = speeds[Stage(), row]
        lines.append(f"| {row} | {speed:.1f} | {1000 * workers / speed:.1f} | {speed / speeds[Stage(), LIMIT]:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200, help="clips of each row in each round (default: 200)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    speeds = measure(arguments.clips, arguments.repeats, arguments.workers)
    text = tables(speeds, arguments.clips, arguments.repeats, arguments.workers)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
