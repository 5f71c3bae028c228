"""The contact sheet: every fixed prompt's clip on one picture, none left out, for judging by eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from prophy.evaluation.measures.generated import GeneratedClips, generate_clips, settings_for
from prophy.evaluation.prompts.fixed import FIXED_PROMPTS, FixedPrompt
from prophy.files import replacing
from prophy.generation.pipelines import ProPhyWanPipeline
from prophy.routing.trace import RoutingTrace
from prophy.runs.overlay import overlay

SHOWN = 5  #: frames of each clip, evenly spaced, the first and the last among them
MAX_BYTES = 1_500_000

_PAPER, _INK, _FAINT = (255, 255, 255), (24, 24, 24), (120, 120, 120)
_FONT, _SCALE, _LINE, _GAP = cv2.FONT_HERSHEY_SIMPLEX, 0.42, 17, 12


def generate_fixed(
    pipeline: ProPhyWanPipeline,
    prompts: Sequence[FixedPrompt] = FIXED_PROMPTS,
    batch: int = 8,
    steps: int | None = None,
) -> GeneratedClips:
    """Every fixed prompt with its seed, at the app's settings."""
    parts = []
    with tqdm(total=len(prompts), desc="fixed prompts", unit="clip") as bar:
        for start in range(0, len(prompts), batch):
            chosen = prompts[start : start + batch]
            parts.append(generate_clips(pipeline, [settings_for(p.prompt, p.seed, steps) for p in chosen]))
            bar.update(len(chosen))
    traces = None if parts[0].traces is None else tuple(t for part in parts for t in part.traces)
    return GeneratedClips(np.concatenate([part.frames for part in parts]), traces)


def draw_sheet(
    prompts: Sequence[FixedPrompt], clips: GeneratedClips, *, columns: int = 2, tile: int = 128, routing: bool = False
) -> np.ndarray:
    """Lay the clips out, column by column: the number and prompt above, frames below, the routing beneath them.

    Args:
        prompts: one for each clip.
        clips: their frames, and their traces if ``routing``.
        columns: of the sheet.
        tile: width of a frame, pixels; a whole multiple of the clip's width keeps its pixels as they are.
        routing: add a row with the strongest expert of each token.

    Returns:
        uint8 RGB ``(H', W', 3)``.

    Raises:
        ValueError: prompts and clips do not pair, or there is no routing to show.
    """
    if len(prompts) != len(clips.frames):
        raise ValueError(f"{len(prompts)} prompts and {len(clips.frames)} clips: every prompt needs its clip")
    if routing and clips.traces is None:
        raise ValueError("there is no routing to show: give a model with a branch, or leave the routing out")
    width = SHOWN * (tile + 2) - 2
    captions = [_wrapped(f"{i}. {p.prompt}", width) for i, p in enumerate(prompts, 1)]
    lines = max(len(c) for c in captions)
    cells = [
        _cell(caption, lines, p.seed, frames, clips.traces[i] if routing else None, tile)
        for i, (caption, p, frames) in enumerate(zip(captions, prompts, clips.frames, strict=True))
    ]
    rows = -(-len(cells) // columns)
    height = cells[0].shape[0] + _GAP
    sheet = np.full((_GAP + rows * height, _GAP + columns * (width + _GAP), 3), _PAPER, np.uint8)
    for i, cell in enumerate(cells):
        y, x = _GAP + (i % rows) * height, _GAP + (i // rows) * (width + _GAP)
        sheet[y : y + cell.shape[0], x : x + width] = cell
    return sheet


def save_sheet(path: Path, sheet: np.ndarray, limit: int = MAX_BYTES) -> int:
    """Write a PNG of less than ``limit`` bytes, rounding colours a little if that is needed; returns its size.

    Raises:
        ValueError: not a ``.png``, or too large even with rounded colours.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"{path.name} is not a .png: name the sheet something.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    for bits in (0, 1, 2, 3):  # the lowest bits of a generated clip are noise that PNG cannot compress
        step = 1 << bits
        levels = np.minimum((np.arange(256) + step // 2) // step * step, 255).astype(np.uint8)
        rounded = cv2.LUT(sheet, levels)[..., ::-1]
        data = cv2.imencode(".png", rounded, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()
        if len(data) < limit:
            with replacing(path) as temporary:
                temporary.write_bytes(data)
            return len(data)
    raise ValueError(f"the sheet takes {len(data)} bytes, more than {limit}: use a smaller tile")


def _cell(
    caption: list[str], lines: int, seed: int, frames: np.ndarray, trace: RoutingTrace | None, tile: int
) -> np.ndarray:
    size = (tile, round(tile * frames.shape[1] / frames.shape[2]))
    whole = tile % frames.shape[2] == 0
    method = cv2.INTER_NEAREST if whole else cv2.INTER_AREA if tile < frames.shape[2] else cv2.INTER_CUBIC
    chosen = np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)
    rows = [frames[chosen]] if trace is None else [frames[chosen], overlay(frames, trace, "top1")[chosen]]
    strips = [_strip(np.stack([cv2.resize(frame, size, interpolation=method) for frame in row])) for row in rows]
    heading = np.full((lines * _LINE + 4, strips[0].shape[1], 3), _PAPER, np.uint8)
    for i, text in enumerate(caption):
        _write(heading, text, (0, (i + 1) * _LINE - 4), _INK)
    note = f"seed {seed}"
    _write(heading, note, (heading.shape[1] - _text_width(note), len(caption) * _LINE - 4), _FAINT)
    gap = np.full((2, heading.shape[1], 3), _PAPER, np.uint8)
    return np.concatenate([heading, strips[0], *(part for strip in strips[1:] for part in (gap, strip))])


def _strip(frames: np.ndarray) -> np.ndarray:
    gap = np.full((frames.shape[1], 2, 3), _PAPER, np.uint8)
    return np.concatenate([part for frame in frames for part in (frame, gap)][:-1], axis=1)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines that fit; the last leaves room for the seed."""
    lines, room = [""], width - _text_width("  seed 0000")
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _text_width(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _text_width(text: str) -> int:
    return cv2.getTextSize(text, _FONT, _SCALE, 1)[0][0]


def _write(image: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, at, _FONT, _SCALE, colour, 1, cv2.LINE_AA)
