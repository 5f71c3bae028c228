"""Which clip the embedded model should make: what a linear code with a cell's worth of numbers keeps of the laws.

    python benchmarks/clip_sizes.py

For each size, cell and number of latent channels: the tokens of a clip, which decide the seconds of a training step;
the signal-to-noise ratio of principal components of 4×cell×cell blocks, as many as channels; and the share of laws that
real renders obey before and after. An autoencoder is better than a linear code; the order of sizes is what counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from prophy.backbones.autoencoder import to_frames, to_pixels
from prophy.evaluation.judges.laws import TrackLost
from prophy.evaluation.judges.trackers import LAWS, law_errors
from prophy.files import write_text
from prophy.tiny.linear_code import LinearCode, cells
from prophy.worlds import Stage, sample_clip
from prophy.worlds.sample import WorldClip


@dataclass(frozen=True)
class Case:
    """A clip, the pixels on a side of a latent cell, and the numbers of channels to try."""

    stage: Stage
    cell: int
    channels: tuple[int, ...]


CASES = (
    Case(Stage(64, 64, 17, 8), 8, (24,)),
    Case(Stage(96, 64, 17, 8), 8, (24, 32, 48)),
    Case(Stage(128, 80, 17, 8), 8, (24, 32, 48)),
    Case(Stage(96, 64, 33, 16), 8, (24, 32, 48)),
    Case(Stage(192, 128, 17, 8), 16, (32, 48, 64)),
)


def code_of(case: Case, clips: int) -> LinearCode:
    """Of the cells of training clips behind their first frames, with as many components as are tried at most."""

    def parts() -> Iterator[torch.Tensor]:
        for seed in range(clips):
            video = to_pixels(sample_clip(seed, "train", stage=case.stage).frames)[None]
            yield cells(video, case.cell)[:, 1:].flatten(0, 3)

    return LinearCode.fit(parts(), case.cell, max(case.channels))


def through(code: LinearCode, frames: np.ndarray) -> np.ndarray:
    """Encode and decode; the first frame, which has a latent frame of its own, stays as it is."""
    decoded = to_frames(code.decode(code.encode(to_pixels(frames)[None])))[0]
    return np.concatenate([frames[:1], decoded[1:]])


def obeyed(frames: np.ndarray, clip: WorldClip) -> dict[str, bool]:
    """Which laws of a clip's scenes its frames obey; a lost track obeys none."""
    verdicts = {}
    for event in clip.scenario.events:
        try:
            errors = law_errors(frames, event, clip.scenario.setting, clip.stage)
        except TrackLost:
            errors = {}
        for law in LAWS[event.phenomenon, event.variant]:
            verdicts[f"{event.phenomenon}, {event.variant}: {law.name}"] = errors.get(law.name, 1.0) <= law.tolerance
    return verdicts


def mean_over_laws(verdicts: list[dict[str, bool]]) -> float:
    laws = {law for clip in verdicts for law in clip}
    return float(np.mean([np.mean([clip[law] for clip in verdicts if law in clip]) for law in laws]))


def signal_to_noise(coded: list[np.ndarray], clips: list[WorldClip]) -> float:
    """Mean peak signal-to-noise ratio, dB, of all frames but the first."""
    errors = [np.square(a[1:].astype(float) - clip.frames[1:]).mean() for a, clip in zip(coded, clips, strict=True)]
    return float(np.mean(10 * np.log10(255**2 / np.array(errors))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=96, help="of the test split (default: 96)")
    parser.add_argument("--train", type=int, default=300, help="clips that the code is made from (default: 300)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    rows = [
        "| clip | cell | tokens | channels | PSNR, dB | laws, real | laws, through the code |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        stage, code = case.stage, code_of(case, arguments.train)
        tokens = (stage.width // case.cell) * (stage.height // case.cell) * ((stage.frames - 1) // 4 + 1)
        clips = [sample_clip(seed, "test", stage=stage) for seed in range(arguments.clips)]
        real = mean_over_laws([obeyed(clip.frames, clip) for clip in clips])
        for channels in case.channels:
            coded = [through(code.first(channels), clip.frames) for clip in clips]
            kept = mean_over_laws([obeyed(frames, clip) for frames, clip in zip(coded, clips, strict=True)])
            row = (str(stage), case.cell, tokens, channels, f"{signal_to_noise(coded, clips):.1f}")
            shares = (f"{100 * real:.1f} %", f"{100 * kept:.1f} %")
            rows.append(f"| {' | '.join(map(str, row + shares))} |")
            print(rows[-1], flush=True)
    write_text(arguments.out, "# What a linear code keeps of the laws\n\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
