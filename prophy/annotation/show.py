"""An annotation as a picture: what the model was asked, what it said and where it looked (paper, fig. 3; no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from prophy import phenomena
from prophy.annotation.record import Annotation, Answer
from prophy.files import replacing
from prophy.runs.overlay import level_colours

_PAPER, _INK, _FAINT = 255, (24, 24, 24), (120, 120, 120)
_HERE, _NOT_HERE = np.array((213, 94, 0), np.float32), np.array((0, 90, 160), np.float32)
_FONT, _SCALE, _LINE, _GAP = cv2.FONT_HERSHEY_SIMPLEX, 0.42, 17, 4


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
    chosen = np.unique(np.linspace(0, record.num_frames - 1, rows).round().astype(int))
    size = (width, round(width * frames_FHW3.shape[1] / frames_FHW3.shape[2]))
    grows = width > frames_FHW3.shape[2]
    shown = np.stack(
        [cv2.resize(f, size, interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA) for f in frames_FHW3[chosen]]
    )
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
    parts = []
    total = 4 * width + 3 * _GAP
    if caption:
        parts.append(_text([f"clip: {caption}"], total, _INK))
    parts.append(_text([f"{annotation.background.question} - {annotation.background.text}"], total, _FAINT))
    for name in annotation.answers:
        drawn = panels(annotation, frames_FHW3, name, rows, width)
        answer = annotation.answers[name]
        parts.append(_text([f"{answer.question} - {answer.text}"], total, _INK))
        titles = ("frame", "this answer", "brief description", "difference: target")
        parts.append(_beside([_text([title], width, _FAINT) for title in titles]))
        columns = (drawn.frames, drawn.answer, drawn.background, drawn.difference)
        for row in zip(*columns, strict=True):
            parts += [_beside(list(row)), np.full((_GAP, total, 3), _PAPER, np.uint8)]
    return cv2.copyMakeBorder(np.concatenate(parts), 8, 8, 8, 8, cv2.BORDER_CONSTANT, value=(_PAPER,) * 3)


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write a PNG, whole or not at all.

    Raises:
        ValueError: not a ``.png``.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"{path.name} is not a .png: name the sheet something.png")
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


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


def _beside(pictures: list[np.ndarray]) -> np.ndarray:
    tallest = max(len(picture) for picture in pictures)
    pictures = [np.pad(p, ((0, tallest - len(p)), (0, 0), (0, 0)), constant_values=_PAPER) for p in pictures]
    gap = np.full((pictures[0].shape[0], _GAP, 3), _PAPER, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1)


def _text(paragraphs: list[str], width: int, colour: tuple[int, int, int]) -> np.ndarray:
    """Lines of text on paper; the font knows ASCII only."""
    lines = []
    for paragraph in paragraphs:
        line = ""
        for word in paragraph.encode("ascii", "replace").decode().split():
            longer = f"{line} {word}".strip()
            if line and cv2.getTextSize(longer, _FONT, _SCALE, 1)[0][0] > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    picture = np.full((len(lines) * _LINE + 6, width, 3), _PAPER, np.uint8)
    for i, line in enumerate(lines):
        cv2.putText(picture, line, (0, (i + 1) * _LINE - 3), _FONT, _SCALE, colour, 1, cv2.LINE_AA)
    return picture
