"""Run with: python benchmarks/annotation.py

What it costs to capture attention while a vision-language model answers: the same answers with and without capture, on
random models of the three families. A clip of 81 frames at 832×480 is shown as it would be to a full model (five
temporal patches, 1,950 video tokens) and four questions are answered in 128 tokens each. The models are narrow, which
makes the capture's share of the work larger than in a full one. Writes the table to annotation.md beside it. Run it on
a quiet machine.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import transformers

from prophy.annotation.answering import answer_questions, read_video
from prophy.annotation.capture import AttentionRecorder, capturable
from prophy.annotation.clips import PackedClip, pack_clip
from prophy.annotation.config import BACKGROUND_QUESTION, AnnotationConfig
from prophy.annotation.vlm import VisionLanguageModel
from prophy.phenomena import by_id

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from vlms import FAMILIES, make_model, make_tokenizer

TARGET = 1.10  #: time with capture, in times without
QUESTIONS = [BACKGROUND_QUESTION, *(by_id(name).question for name in ("collision", "liquid_motion", "combustion"))]


class Seconds(NamedTuple):
    """Time to read the video, and to answer all questions about it."""

    reading: float
    answering: float


def annotate(vlm: VisionLanguageModel, clip: PackedClip, config: AnnotationConfig, capture: bool) -> Seconds:
    """Read a clip and answer; without capture, the model's own attention implementation runs."""
    with capturable(vlm.text_config) if capture else nullcontext():
        begin = time.perf_counter()
        prefix = read_video(vlm, clip)
        read = time.perf_counter()
        recorder = AttentionRecorder(vlm.layers(config), prefix.columns_V, len(QUESTIONS)) if capture else None
        with recorder.recording() if capture else nullcontext():
            answer_questions(vlm, prefix, QUESTIONS, config, recorder)
        return Seconds(read - begin, time.perf_counter() - read)


def measure(
    vlm: VisionLanguageModel, clip: PackedClip, config: AnnotationConfig, repeats: int
) -> dict[bool, list[Seconds]]:
    """Times with and without capture, turn by turn, so that a slow moment does not hit one alone."""
    times: dict[bool, list[Seconds]] = {False: [], True: []}
    for capture in times:
        annotate(vlm, clip, config, capture)  # warm up
    for repeat in range(repeats):
        for capture in (False, True) if repeat % 2 else (True, False):
            times[capture].append(annotate(vlm, clip, config, capture))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--frames", type=int, default=81, help="frames of the clip (default: 81)")
    parser.add_argument("--answer-tokens", type=int, default=128, help="tokens of each answer (default: 128)")
    parser.add_argument("--width", type=int, default=512, help="width of the models (default: 512)")
    parser.add_argument("--layers", type=int, default=8, help="decoder layers (default: 8)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()

    config = AnnotationConfig(max_answer_tokens=arguments.answer_tokens)
    frames = np.random.default_rng(0).integers(0, 256, (arguments.frames, 480, 832, 3), dtype=np.uint8)
    rows, ratios = [], []
    for family in FAMILIES:
        model = make_model(family, layers=arguments.layers, width=arguments.width, heads=8, patch=16)
        vlm = VisionLanguageModel(model, make_tokenizer())
        vlm.stop_ids = frozenset()  # every answer has its full length
        clip = pack_clip(frames, 16.0, vlm.sizes, vlm.family, config)
        times = measure(vlm, clip, config, arguments.repeats)
        read, plain = (statistics.median(each) for each in zip(*times[False], strict=True))
        read_captured, captured = (statistics.median(each) for each in zip(*times[True], strict=True))
        ratios.append((read_captured + captured) / (read + plain))
        rows.append(
            f"| {vlm.family.name} | {np.prod(clip.grid):,} | {len(vlm.layers(config))} of {arguments.layers} |"
            f" {read:.2f} | {plain:.2f} | {captured:.2f} | {captured / plain:.2f} | {ratios[-1]:.2f} |"
        )
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in vars(arguments).items() if name != "out")
    lines = [
        "# What capturing attention costs",
        "",
        f"`python benchmarks/annotation.py {flags}`, {datetime.now(UTC):%Y-%m-%d}.",
        f"Random models of width {arguments.width}; {len(QUESTIONS)} questions, {arguments.answer_tokens} tokens an"
        f" answer; seconds, median of {arguments.repeats}.",
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__},"
        f" {torch.get_num_threads()} threads, {platform.machine()}.",
        "",
        f"Target: at most {TARGET:.2f} times the whole without capture."
        f" {'Met' if max(ratios) <= TARGET else 'Missed'}: {max(ratios):.2f}.",
        "",
        "| family | video tokens | layers captured | reading | answering | with capture | times | whole, times |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *rows,
    ]
    text = "\n".join(lines) + "\n"
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
