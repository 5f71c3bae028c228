"""An annotation as a picture: what the model was asked, what it said and where it looked (paper, fig. 3; no torch)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from prophy import phenomena
from prophy.annotation.record import Annotation, Answer
from prophy.runs.overlay import level_colours
from prophy.runs.pictures import evenly_spaced, resized
from prophy.runs.sheets import Block, Row, draw_sheet

_HERE, _NOT_HERE = np.array((213, 94, 0), np.float32), np.array((0, 90, 160), np.float32)


@dataclass(frozen=True)
class Panels:
    """The pictures of one phenomenon, one a chosen frame, uint8 RGB ``(R, H, W, 3)``.

    Attributes:
        frames: as they are.
        answer: attention of the answer about the phenomenon.
        background: attention of the brief description, on the same scale.
        difference: the targets, on the diffusion model's token grid: orange here, blue less than in the background.
    """

    frames: np.ndarray
    answer: np.ndarray
    background: np.ndarray
    difference: np.ndarray


def panels(annotation: Annotation, frames_FHW3: np.ndarray, phenomenon: str, rows: int = 5, width: int = 160) -> Panels:
    """Draw one phenomenon's maps over evenly spaced frames.

    Args:
        annotation: of the clip.
        frames_FHW3: uint8 RGB, of any size; their number is that of the annotated clip.
        phenomenon: its id.
        rows: frames shown.
        width: of a picture, pixels.

    Raises:
        ValueError: the clip was not annotated for this phenomenon, or has another number of frames.
    """
    record, targets = annotation.record, annotation.targets
    if phenomenon not in annotation.answers:
        raise ValueError(f"the clip was not asked about {phenomenon!r}: use one of {', '.join(annotation.answers)}")
    if len(frames_FHW3) != record.num_frames:
        raise ValueError(f"the clip has {len(frames_FHW3)} frames, its annotation {record.num_frames}: give its own")
    chosen = evenly_spaced(record.num_frames, rows)
    shown = resized(frames_FHW3[chosen], width)
    answer, background = (_share(a) for a in (annotation.answers[phenomenon], annotation.background))
    top = max(answer.max(), background.max())
    centres = np.array(record.frame_indices, float).reshape(len(answer), -1).mean(1)
    patches = np.abs(chosen[:, None] - centres).argmin(1)
    values = targets.values[:, phenomena.by_id(phenomenon).index].reshape(targets.grid.shape)
    # annotated clips have as many frames as their grid; another rate covers the same time
    latent = [
        targets.grid.latent_frame(round(f * (targets.grid.num_video_frames - 1) / max(1, record.num_frames - 1)))
        for f in chosen
    ]
    peak = np.abs(values).max() or 1
    return Panels(
        shown,
        np.stack([_heat(f, answer[t] / top) for f, t in zip(shown, patches, strict=True)]),
        np.stack([_heat(f, background[t] / top) for f, t in zip(shown, patches, strict=True)]),
        np.stack([_signed(f, values[t] / peak) for f, t in zip(shown, latent, strict=True)]),
    )


def sheet(
    annotation: Annotation, frames_FHW3: np.ndarray, caption: str = "", rows: int = 5, width: int = 160
) -> np.ndarray:
    """One picture of an annotation: for each phenomenon a block; its rows are frames, its columns the frame, the
    phenomenon's map, the background's map and their difference.

    Returns:
        uint8 RGB ``(H, W, 3)``.

    Raises:
        ValueError: as :func:`panels`.
    """
    blocks = [Block(headings=[caption, question_and_answer(annotation.background)])]
    titles = ("frame", "this answer", "brief description", "difference: target")
    for name, answer in annotation.answers.items():
        drawn = panels(annotation, frames_FHW3, name, rows, width)
        columns = (drawn.frames, drawn.answer, drawn.background, drawn.difference)
        shown = [Row(pictures) for pictures in zip(*columns, strict=True)]
        blocks.append(Block(shown, [question_and_answer(answer)], titles=titles))
    return draw_sheet(blocks)


def question_and_answer(answer: Answer) -> str:
    """What the model was asked and what it said, on one line."""
    return f"{answer.question} – {answer.text}"


def _share(answer: Answer) -> np.ndarray:
    """A map as shares of its sum, so that a long and a short answer compare."""
    total = answer.attention.sum()
    return answer.attention / total if total > 0 else answer.attention


def _cells(values_hw: np.ndarray, like: np.ndarray) -> np.ndarray:
    return cv2.resize(values_hw.astype(np.float32), like.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def _heat(frame: np.ndarray, values_hw: np.ndarray) -> np.ndarray:
    strength = _cells(np.clip(values_hw, 0, 1), frame)
    tint = level_colours()[np.round(255 * strength).astype(np.uint8)]
    return np.round(0.4 * frame + 0.6 * tint).astype(np.uint8)


def _signed(frame: np.ndarray, values_hw: np.ndarray) -> np.ndarray:
    strength = _cells(np.clip(values_hw, -1, 1), frame)[..., None]
    grey = 0.5 * frame.mean(-1, keepdims=True) + 96
    tint = np.where(strength > 0, _HERE, _NOT_HERE)
    return np.round(grey * (1 - np.abs(strength)) + tint * np.abs(strength)).clip(0, 255).astype(np.uint8)
