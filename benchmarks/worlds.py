"""Run with: python benchmarks/worlds.py

How many synthetic clips a second two processes make, in all and for each phenomenon. Writes the table to worlds.md
beside it. The limit is the same renderer with nothing on the stage: backdrop, averaging down, no simulation, no shapes.
Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from prophy.phenomena import IDS, by_id
from prophy.worlds import FRAMES, SIZE, Scenario, render, sample_clip
from prophy.worlds.stage import BACKGROUNDS

TARGET = 50  #: clips a second of the training mixture, two processes
MIXTURE, LIMIT = "all phenomena, as in training", "the backdrop only (the limit)"


def make_clip(seed: int, phenomena: tuple[str, ...]) -> int:
    """Make a clip and throw it away: what is timed is the making, not the way between processes."""
    return int(sample_clip(seed, "train", phenomena).frames[-1, 0, 0, 0])


def make_backdrop(seed: int) -> int:
    """The same renderer with no event."""
    setting = list(BACKGROUNDS)[seed % len(BACKGROUNDS)]
    return int(render(Scenario((), setting), np.random.default_rng(seed))[0][-1, 0, 0, 0])


def clips_per_second(executor: ProcessPoolExecutor, make, clips: int) -> float:
    """Speed of all processes together."""
    begin = time.perf_counter()
    done = sum(1 for _ in executor.map(make, range(clips), chunksize=max(1, clips // 32)))
    return done / (time.perf_counter() - begin)


def measure(clips: int, repeats: int, workers: int) -> dict[str, float]:
    """Median speed of every row; the rounds go through all rows, so that a slow moment does not hit one alone."""
    makers = {LIMIT: make_backdrop, MIXTURE: partial(make_clip, phenomena=IDS)}
    makers |= {by_id(name).name: partial(make_clip, phenomena=(name,)) for name in IDS}
    speeds: dict[str, list[float]] = {row: [] for row in makers}
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(1,)) as executor:
        for make in makers.values():
            clips_per_second(executor, make, 2 * workers)  # warm up
        for _ in range(repeats):
            for row, make in makers.items():
                speeds[row].append(clips_per_second(executor, make, clips))
    return {row: statistics.median(values) for row, values in speeds.items()}


def table(speeds: dict[str, float], clips: int, repeats: int, workers: int) -> str:
    """The measured speeds in Markdown."""
    verdict = "met" if speeds[MIXTURE] >= TARGET else "missed"
    lines = [
        "# Speed of the synthetic worlds",
        "",
        f"`python benchmarks/worlds.py --clips {clips} --repeats {repeats} --workers {workers}`,"
        f" {datetime.now(UTC):%Y-%m-%d}.",
        f"{workers} processes, clips of {SIZE}×{SIZE}×{FRAMES}, median of {repeats} rounds of {clips} clips.",
        f"Python {platform.python_version()}, NumPy {np.__version__}, OpenCV {cv2.__version__}, {platform.machine()}.",
        "",
        f"Target: {TARGET} clips a second of the training mixture. {verdict.capitalize()}: {speeds[MIXTURE]:.0f}.",
        "",
        "| what is drawn | clips a second | ms a clip and process | share of the limit |",
        "|---|---:|---:|---:|",
    ]
    for row, speed in speeds.items():
        lines.append(f"| {row} | {speed:.1f} | {1000 * workers / speed:.1f} | {speed / speeds[LIMIT]:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200, help="clips of each row in each round (default: 200)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    speeds = measure(arguments.clips, arguments.repeats, arguments.workers)
    text = table(speeds, arguments.clips, arguments.repeats, arguments.workers)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
