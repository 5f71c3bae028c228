"""Run with: python benchmarks/branch_skipping.py [--work runs/tiny]

What it saves and changes to run the branch less often: the embedded model makes the 24 fixed prompts with every
schedule below, same seeds. Seconds are of the denoising, the median over the prompts, each prompt made with every
schedule before the next one; the distance is the mean over all pixels and colours, on the scale of 0 to 255, to the
clips of the full schedule. With ``--work`` the classifier of ``prophy evaluate recognition`` says in how many clips
it recognises all that was asked for. Writes branch_skipping.md beside it.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import torch
from tqdm import tqdm

from prophy.evaluation.clips import settings_of
from prophy.evaluation.judges.recogniser import load_recogniser, recognise
from prophy.evaluation.measures.recognition import asked
from prophy.evaluation.prompts.fixed import FIXED_PROMPTS, FixedPrompt
from prophy.generation.generate import generate
from prophy.generation.pipelines import ProPhyPipeline, load
from prophy.routing.schedule import Schedule

FULL = "every pass"
SCHEDULES: dict[str, Schedule | None] = {
    FULL: Schedule(),
    "conditional passes": Schedule(unconditional=False),
    "noise 0.5 to 1": Schedule(interval=(0.5, 1.0)),
    "noise 0.8 to 1": Schedule(interval=(0.8, 1.0)),
    "noise 0 to 0.8": Schedule(interval=(0.0, 0.8)),
    "conditional passes, noise 0.5 to 1": Schedule(unconditional=False, interval=(0.5, 1.0)),
    "never": None,
}


@dataclass(frozen=True)
class Row:
    """One schedule over all prompts.

    Attributes:
        seconds: of the denoising, median over the prompts.
        distance: mean pixel distance to the full schedule's clips.
        recognised: clips with everything that was asked for; None without a classifier.
    """

    seconds: float
    distance: float
    recognised: int | None


def measure(
    pipeline: ProPhyPipeline, prompts: tuple[FixedPrompt, ...], steps: int | None, recogniser: torch.nn.Module | None
) -> dict[str, Row]:
    """Every prompt with every schedule, in turn; the first prompt once more beforehand, to warm up."""
    generate(pipeline, settings_of(prompts[:1], steps=1))
    seconds: dict[str, list[float]] = {name: [] for name in SCHEDULES}
    clips: dict[str, list[np.ndarray]] = {name: [] for name in SCHEDULES}
    for settings in tqdm(settings_of(prompts, steps), unit="prompt"):
        for name, schedule in SCHEDULES.items():
            pipeline.attachment.enabled = schedule is not None
            made = generate(pipeline, replace(settings, schedule=schedule or Schedule()))
            seconds[name].append(made.timings["denoise"])
            clips[name].append(made.frames)
    full = np.stack(clips[FULL]).astype(np.float32)
    rows = {}
    for name, made in clips.items():
        frames = np.stack(made)
        recognised = None
        if recogniser is not None:
            wanted = asked(prompts).bool()
            recognised = int(((recognise(recogniser, frames) > 0) | ~wanted).all(1).sum())
        rows[name] = Row(median(seconds[name]), float(np.abs(frames - full).mean()), recognised)
    return rows


def table(rows: dict[str, Row], prompts: int) -> str:
    """The comparison in Markdown."""
    lines = [
        "# Running the branch less often",
        "",
        f"`python benchmarks/branch_skipping.py`, {datetime.now(UTC):%Y-%m-%d}. The embedded model, {prompts} prompts, "
        f"{torch.get_num_threads()} threads.",
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, CPU.",
        "",
        "| the branch runs in | seconds a clip, denoising | of the full | pixel distance | recognised |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        recognised = "not tried" if row.recognised is None else f"{row.recognised} of {prompts}"
        share = row.seconds / rows[FULL].seconds
        lines.append(f"| {name} | {row.seconds:.2f} | {share:.2f} | {row.distance:.2f} | {recognised} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: the embedded one")
    parser.add_argument("--work", type=Path, help="folder of the trainings, with the classifier in it")
    parser.add_argument("--prompts", type=int, default=len(FIXED_PROMPTS), help="the first so many")
    parser.add_argument("--steps", type=int, help="denoising steps, to try things out")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    prompts = FIXED_PROMPTS[: arguments.prompts]
    recogniser = None if arguments.work is None else load_recogniser(arguments.work)
    text = table(measure(load(arguments.model), prompts, arguments.steps, recogniser), len(prompts))
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
