"""Routing laid over frames, as pictures. Needs a saved trace and the frames; no model, no torch.

Cells are drawn nearest-neighbour: what is shown is what was recorded, one flat colour per token and latent frame.
Shapes: F video frames, T latent frames; frames are uint8 RGB (F, H, W, 3).
"""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np

from prophy import phenomena
from prophy.routing import RoutingTrace

Mode = Literal["top1", "expert", "phenomenon", "entropy", "margin"]
MODES: tuple[str, ...] = get_args(Mode)

#: One colour per expert, told apart by colour-blind readers: Okabe and Ito's, then Tol's muted ones. Experts past the
#: last start over, so every picture labels its colours too.
EXPERT_COLOURS: tuple[str, ...] = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#f5f5f5",
    "#332288",
    "#88ccee",
    "#44aa99",
    "#999933",
    "#882255",
    "#ddcc77",
    "#aa4499",
    "#777777",
)

_INK = (34, 34, 34)
_PAPER = (255, 255, 255)


def expert_colour(expert: int) -> str:
    """``#rrggbb`` of an expert."""
    return EXPERT_COLOURS[expert % len(EXPERT_COLOURS)]


def rgb(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def level_colours() -> np.ndarray:
    """The dark-to-bright scale (cividis) of entropy, margin and differences: uint8 RGB (256, 3)."""
    return cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_CIVIDIS).reshape(256, 3)[:, ::-1]


def token_strengths(trace: RoutingTrace, mode: Mode, *, index: int | None = None, step: int = -1) -> np.ndarray:
    """What a mode shows at every token.

    Args:
        trace: the routing.
        mode: ``top1``: the strongest expert's weight; ``expert``: the weight of expert ``index``; ``phenomenon``: P' of
            phenomenon ``index``; ``entropy``: of the mean distribution over experts, 0 to 1; ``margin``: the first
            expert's weight less the second's.
        index: the expert or the phenomenon, for the two modes that need one.
        step: a kept denoising step; negative counts from the last. Entropy is over all steps and ignores it.

    Returns:
        float32 (T, H, W), 0 to 1.

    Raises:
        ValueError: an unknown mode, or an index or a step that the trace does not have.
    """
    if not -trace.num_kept <= step < trace.num_kept:
        raise ValueError(f"step={step} is not one of the {trace.num_kept} steps kept")
    if mode == "top1":
        strengths = trace.topk_weights[step, :, 0].reshape(trace.grid.shape)
    elif mode == "expert":
        strengths = trace.expert_map(_checked(index, trace.num_experts, "expert"), step)
    elif mode == "phenomenon":
        strengths = trace.phenomenon_map(_checked(index, len(phenomena.PHENOMENA), "phenomenon"), step)
    elif mode == "entropy":
        strengths = trace.entropy()
    elif mode == "margin":
        weights_NK = trace.topk_weights[step].astype(np.float32)
        second = weights_NK[:, 1] if weights_NK.shape[1] > 1 else 0
        strengths = (weights_NK[:, 0] - second).reshape(trace.grid.shape)
    else:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    return np.clip(strengths.astype(np.float32), 0, 1)


def overlay(
    frames: np.ndarray,
    trace: RoutingTrace,
    mode: Mode = "top1",
    *,
    index: int | None = None,
    step: int = -1,
    opacity: float = 0.55,
) -> np.ndarray:
    """Lay one view of the routing over every frame.

    ``top1``, ``entropy`` and ``margin`` tint every token alike, in the expert's colour or along a dark-to-bright scale;
    ``expert`` and ``phenomenon`` tint a token the more, the stronger it is there.

    Args:
        frames: uint8 RGB (F, H, W, 3), at any enlargement of the generated size.
        trace: the routing of the same clip.
        mode, index, step: see :func:`token_strengths`.
        opacity: 0 (frames only) to 1.

    Returns:
        uint8 RGB of the shape of ``frames``.

    Raises:
        ValueError: the clip and the trace have different numbers of frames, or an argument is out of range.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 (F, H, W, 3), got {frames.dtype} {frames.shape}")
    if len(frames) != trace.grid.num_video_frames:
        raise ValueError(f"the clip has {len(frames)} frames, its routing {trace.grid.num_video_frames}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity={opacity} must be from 0 to 1")
    strengths = token_strengths(trace, mode, index=index, step=step)
    if mode == "top1":
        palette = np.array([rgb(expert_colour(e)) for e in range(trace.num_experts)], np.uint8)
        colours, alpha = palette[trace.top1(step)], np.ones_like(strengths)
    elif mode in ("entropy", "margin"):
        levels = np.round(255 * strengths).astype(np.uint8)
        colours, alpha = level_colours()[levels], np.ones_like(strengths)
    else:
        colour = expert_colour(index) if mode == "expert" else phenomena.PHENOMENA[index].colour
        colours, alpha = np.broadcast_to(np.array(rgb(colour), np.uint8), (*strengths.shape, 3)), strengths

    height, width = frames.shape[1:3]
    shown = [trace.grid.to_pixels(np.ascontiguousarray(colours[..., c]), height, width) for c in range(3)]
    blend = opacity * trace.grid.to_pixels(alpha, height, width)[..., None]
    mixed = frames * (1 - blend) + np.stack(shown, axis=-1) * blend
    return np.round(mixed).astype(np.uint8)


def contact_sheet(
    frames: np.ndarray,
    trace: RoutingTrace,
    mode: Mode = "top1",
    *,
    index: int | None = None,
    step: int = -1,
    opacity: float = 0.55,
    columns: int = 6,
    tile: int = 160,
) -> np.ndarray:
    """One picture of a run: evenly spaced frames above, the same frames with the routing below, and a legend.

    Args:
        frames: uint8 RGB (F, H, W, 3).
        trace, mode, index, step, opacity: see :func:`overlay`.
        columns: frames shown, at most F.
        tile: width of one frame in the sheet, pixels.

    Returns:
        uint8 RGB (H', W', 3).

    Raises:
        ValueError: see :func:`overlay`.
    """
    laid_over_at = (round(tile * frames.shape[1] / frames.shape[2]), tile)
    enlarged = np.stack([_resize(frame, laid_over_at) for frame in frames])
    laid = overlay(enlarged, trace, mode, index=index, step=step, opacity=opacity)
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int))
    rows = [np.concatenate([_framed(row[f]) for f in chosen], axis=1) for row in (enlarged, laid)]
    entries = _legend_entries(trace, mode, index, step)
    return np.concatenate([*rows, _legend(entries, rows[0].shape[1])], axis=0)


def _legend_entries(trace: RoutingTrace, mode: Mode, index: int | None, step: int) -> list[tuple[str, str]]:
    """Colour and text of each line of the legend; experts with their share of the clip's tokens, largest first."""
    if mode == "top1":
        shares = np.bincount(trace.top1(step).ravel(), minlength=trace.num_experts) / trace.grid.num_tokens
        used = [e for e in np.argsort(-shares, kind="stable") if shares[e] > 0]
        return [(expert_colour(e), f"expert {e}  {100 * shares[e]:.0f} %") for e in used]
    if mode == "expert":
        return [(expert_colour(index), f"expert {index}")]
    if mode == "phenomenon":
        phenomenon = phenomena.PHENOMENA[index]
        return [(phenomenon.colour, phenomenon.name)]
    return [("#00224e", f"{mode}: low"), ("#fde737", "high")]


def _legend(entries: list[tuple[str, str]], width: int) -> np.ndarray:
    entry_width, line = 124, 22
    per_line = max(1, width // entry_width)
    image = np.full((line * -(-len(entries) // per_line), width, 3), _PAPER, np.uint8)
    for i, (colour, text) in enumerate(entries):
        x, y = entry_width * (i % per_line) + 4, line * (i // per_line)
        cv2.rectangle(image, (x, y + 5), (x + 11, y + 16), rgb(colour), cv2.FILLED)
        cv2.rectangle(image, (x, y + 5), (x + 11, y + 16), _INK, 1)
        cv2.putText(image, text, (x + 17, y + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
    return image


def _resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    is_larger = width > frame.shape[1]
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LANCZOS4 if is_larger else cv2.INTER_AREA)


def _framed(tile: np.ndarray) -> np.ndarray:
    return cv2.copyMakeBorder(tile, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=_PAPER)


def _checked(index: int | None, size: int, kind: str) -> int:
    if index is None or not 0 <= index < size:
        raise ValueError(f"index={index} is not one of the {size} {'phenomena' if kind == 'phenomenon' else 'experts'}")
    return index
