"""Part f: the embedded model on the device: ``prophy generate``, the app's engine, and the CPU's frames again."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline

from gpu_parts.machine import settle
from gpu_parts.packages import can_write_clips
from gpu_parts.results import ClipRow, FramesRow, Remark, Row
from gpu_parts.subjects import PROMPT
from prophy.cli import main
from prophy.generation.generate import generate
from prophy.generation.pipelines import load
from prophy.generation.settings import GenerationSettings
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.models import ModelCard
from prophy.ui.engine.request import Request

#: What float32 on the device may differ by from float32 on the CPU: in steps of 1/255, the largest and the mean.
LARGEST, MEAN = 8, 0.2
_LATER = 3  # clips after the first


def measure_embedded(device: torch.device, small: bool) -> Iterator[Row]:
    """Seconds of the first clip and of later ones, from the command and from the engine; then the frames."""
    steps = 2 if small else GenerationSettings.steps
    if can_write_clips():
        yield from _clips(device, steps, 1 if small else _LATER)
    else:
        yield Remark("prophy generate and the app's engine: without PyAV no clip can be written here")
    yield from _frames(device, steps)


def _clips(device: torch.device, steps: int, later: int) -> Iterator[ClipRow]:
    with tempfile.TemporaryDirectory() as name:
        flags = ["--steps", str(steps), "--out", str(Path(name) / "runs"), "--profile", "all", "--device", str(device)]
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            code = main(["generate", PROMPT, *flags])
        if code:
            raise RuntimeError(said.getvalue().strip() or f"prophy generate ended with {code}")
        yield ClipRow("prophy generate", "the first, opening the model", time.perf_counter() - started)
        engine = Engine(runs=Path(name) / "app", profile="all", open_pipeline=partial(_open, device))
        for number in range(1 + later):
            started = time.perf_counter()
            for _ in engine.generate(Request(PROMPT, seed=number, steps=steps), session="benchmark"):
                pass
            yield ClipRow("the app's engine", f"clip {number + 1}", time.perf_counter() - started)


def _open(device: torch.device, card: ModelCard, profile: str) -> DiffusionPipeline:
    return load(card.source.base, branch=card.source.branch, profile=profile, device=device, clip=card.made.clip)


def _frames(device: torch.device, steps: int) -> Iterator[FramesRow]:
    settings = GenerationSettings(PROMPT, steps=steps)
    wanted = _made(settings, torch.device("cpu"), torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        found = _made(settings, device, dtype)
        difference = np.abs(found.astype(int) - wanted.astype(int))
        largest, mean = int(difference.max()), float(difference.mean())
        within = largest <= LARGEST and mean <= MEAN if dtype is torch.float32 else None
        yield FramesRow(str(dtype).removeprefix("torch."), largest, mean, within)


def _made(settings: GenerationSettings, device: torch.device, dtype: torch.dtype) -> np.ndarray:
    pipeline = load(dtype=dtype, device=device, profile="all")
    frames = generate(pipeline, settings).frames
    settle(device)
    return frames
