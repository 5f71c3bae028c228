"""Many prompts through the real pipeline, a batch at a time: the clips the app would make of them one by one.

Shapes: n prompts, F video frames of H×W pixels.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from prophy.evaluation.results import FOLDER, write_arrays
from prophy.generation.generate import GenerationSettings, check_prompt, model_hash, token_grid
from prophy.generation.pipelines import ProPhyWanPipeline
from prophy.routing.trace import Routing, RoutingTrace, TraceRecorder


@dataclass(frozen=True)
class GeneratedClips:
    """What a batch of prompts became.

    Attributes:
        frames: uint8 RGB ``(n, F, H, W, 3)``.
        traces: the routing of each clip; None without a branch, or with the branch switched off.
    """

    frames: np.ndarray
    traces: tuple[RoutingTrace, ...] | None


def settings_for(prompt: str, seed: int, steps: int | None = None) -> GenerationSettings:
    """The app's default settings; ``steps`` is for trying things out."""
    return GenerationSettings(prompt, seed) if steps is None else GenerationSettings(prompt, seed, steps=steps)


@torch.no_grad()
def generate_clips(pipeline: ProPhyWanPipeline, batch: Sequence[GenerationSettings]) -> GeneratedClips:
    """Generate a batch. Each prompt has the noise of its own CPU generator, as
    :func:`prophy.generation.generate.generate`.

    Args:
        pipeline: opened by :func:`prophy.generation.pipelines.load`.
        batch: settings that differ in prompt and seed only.

    Raises:
        GenerationError: a prompt the model cannot read.
        ValueError: an empty batch, or settings that differ otherwise or steer.
        RuntimeError: the model produced values that are not numbers.
    """
    if not batch:
        raise ValueError("no prompts: give at least one")
    shared = {(s.steps, s.guidance, s.frames, s.height, s.width) for s in batch}
    if len(shared) > 1:
        raise ValueError("settings of one batch may differ in prompt and seed only: generate the others apart")
    if not all(settings.steering.is_neutral for settings in batch):
        raise ValueError("a batch cannot be steered: generate its clips one by one")
    for settings in batch:
        check_prompt(pipeline.tokenizer, settings.prompt)
    first = batch[0]
    grid = token_grid(pipeline, first)
    attachment = pipeline.attachment
    routed = attachment is not None and attachment.enabled
    recorders = [TraceRecorder(grid, first.steps) for _ in batch]

    def record(timestep: float, routing: Routing) -> None:
        for row, recorder in enumerate(recorders):
            parts = {f.name: getattr(routing, f.name)[row : row + 1] for f in fields(routing)}
            recorder.record(timestep, Routing(**parts))

    pipeline.set_progress_bar_config(disable=True)
    with attachment.observe(record) if routed else nullcontext():
        videos = pipeline(
            prompt=[s.prompt for s in batch],
            height=first.height,
            width=first.width,
            num_frames=first.frames,
            num_inference_steps=first.steps,
            guidance_scale=first.guidance,
            generator=[torch.Generator("cpu").manual_seed(s.seed) for s in batch],
            output_type="np",
            max_sequence_length=min(pipeline.tokenizer.model_max_length, 512),
        ).frames
    if not np.isfinite(videos).all():
        raise RuntimeError("the model produced values that are not numbers: its weights are damaged")
    traces = None
    if routed:
        traces = tuple(r.finish(s.prompt, s.seed) for r, s in zip(recorders, batch, strict=True))
    return GeneratedClips(np.round(255 * videos).astype(np.uint8), traces)


def resumed(
    pipeline: ProPhyWanPipeline,
    work: Path,
    name: str,
    settings: Sequence[GenerationSettings],
    batch: int,
    make: Callable[[slice], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Arrays of every clip, made a batch at a time; what the same weights have made already is read from disk.

    Args:
        pipeline: that makes them.
        work: finished batches are kept under its evaluation folder.
        name: of the evaluation whose clips they are; it begins their folder's.
        settings: of every clip, none steered or scheduled.
        batch: clips at a time.
        make: which of the settings to the arrays, the clip first in each.
    """
    asked_for = [{k: v for k, v in vars(one).items() if k not in ("steering", "schedule")} for one in settings]
    branch = pipeline.attachment is not None and pipeline.attachment.enabled
    key = hashlib.sha256(json.dumps([model_hash(pipeline), branch, batch, asked_for]).encode()).hexdigest()[:12]
    folder = Path(work) / FOLDER / f"{name}-clips-{key}"
    parts = []
    with tqdm(total=len(settings), desc=f"clips for {name}", unit="clip") as bar:
        for start in range(0, len(settings), batch):
            chosen = slice(start, min(start + batch, len(settings)))
            path = folder / f"{start:05d}.npz"
            arrays = _read(path, chosen.stop - start)
            if arrays is None:
                arrays = make(chosen)
                write_arrays(path, arrays)
            parts.append(arrays)
            bar.update(chosen.stop - start)
    return {field: np.concatenate([part[field] for part in parts]) for field in parts[0]}


def _read(path: Path, count: int) -> dict[str, np.ndarray] | None:
    """A finished batch; None when there is none, or it is damaged and must be made again."""
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = dict(data)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return arrays if arrays and all(len(array) == count for array in arrays.values()) else None
