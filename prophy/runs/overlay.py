"""Routing laid over frames, as pictures. Needs a saved trace and the frames; no model, no torch.

Cells are drawn nearest-neighbour: what is shown is what was recorded, one flat colour per token and latent frame.
Shapes: F video frames, T latent frames; frames are uint8 RGB (F, H, W, 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np

from prophy import phenomena
from prophy.grid import TokenGrid
from prophy.routing.trace import RoutingTrace
from prophy.runs.legend import Entry
from prophy.runs.pictures import PAPER

OverlayMode = Literal["phenomena", "top1", "expert", "phenomenon", "entropy", "margin"]
MODES: tuple[str, ...] = get_args(OverlayMode)  #: what an overlay shows
SHOWN_PEAK = 0.1  #: of a phenomenon's map: what stays below it everywhere is not in the clip

#: One colour per expert, told apart by colour-blind readers where there are few: Okabe and Ito's, then others that are
#: seen on light, dark and grey pictures. Experts past the last start over, so every picture labels its colours too.
EXPERT_COLOURS: tuple[str, ...] = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#7f3fbf",
    "#332288",
    "#c2185b",
    "#44aa99",
    "#999933",
    "#882255",
    "#ddcc77",
    "#aa4499",
    "#8b5a2b",
    "#ff7ac8",
    "#8dd35f",
)
_LUMA = (0.2126, 0.7152, 0.0722)  # as a browser's grayscale() weighs red, green and blue
_GREY_SHARE, _GREY_BASE = 0.625, 79.6875  # contrast(0.5) and brightness(1.25) after it


def expert_colour(expert: int) -> str:
    """``#rrggbb`` of an expert."""
    return EXPERT_COLOURS[expert % len(EXPERT_COLOURS)]


def rgb(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def level_colours() -> np.ndarray:
    """The dark-to-bright scale (cividis) of entropy, margin and differences: uint8 RGB (256, 3)."""
    return cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_CIVIDIS).reshape(256, 3)[:, ::-1]


def greyed(pictures: np.ndarray) -> np.ndarray:
    """Pictures in light grey, on which every phenomenon's colour is seen; the page's player shows the same.

    Args:
        pictures: uint8 RGB (..., 3).

    Returns:
        uint8 RGB of the same shape.
    """
    grey = _GREY_BASE + _GREY_SHARE * (pictures @ np.array(_LUMA, np.float32))
    return np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, axis=-1)


def token_strengths(trace: RoutingTrace, mode: OverlayMode, *, index: int | None = None, step: int = -1) -> np.ndarray:
    """What a mode shows at every token.

    Args:
        trace: the routing.
        mode: ``phenomena``: the largest P' of all phenomena; ``top1``: the strongest expert's weight; ``expert``: the
            weight of expert ``index``; ``phenomenon``: P' of phenomenon ``index``; ``entropy``: of the mean
            distribution over experts, 0 to 1; ``margin``: the first expert's weight less the second's.
        index: the expert or the phenomenon, for the two modes that need one.
        step: a kept denoising step; negative counts from the last. Entropy is over all steps and ignores it.

    Returns:
        float32 (T, H, W), 0 to 1.

    Raises:
        ValueError: an unknown mode, or an index or a step that the trace does not have.
    """
    if not -trace.num_kept <= step < trace.num_kept:
        raise ValueError(f"step={step} is not one of the {trace.num_kept} steps kept")
    if mode == "phenomena":
        strengths = trace.phenomenon_maps[step].max(1).reshape(trace.grid.shape)
    elif mode == "top1":
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
    mode: OverlayMode = "phenomena",
    *,
    index: int | None = None,
    step: int = -1,
    opacity: float | None = None,
) -> np.ndarray:
    """Lay one view of the routing over every frame.

    ``top1``, ``entropy`` and ``margin`` tint every token alike, in the expert's colour or along a dark-to-bright scale;
    ``expert`` and ``phenomenon`` tint a token the more, the stronger it is there; ``phenomena`` does so in the colour
    of the token's strongest phenomenon, over a greyed picture.

    Args:
        frames: uint8 RGB (F, H, W, 3), at any enlargement of the generated size.
        trace: the routing of the same clip.
        mode, index, step: see :func:`token_strengths`.
        opacity: 0 (frames only) to 1; None: :func:`default_opacity` of the mode.

    Returns:
        uint8 RGB of the shape of ``frames``.

    Raises:
        ValueError: the clip and the trace have different numbers of frames, or an argument is out of range.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 (F, H, W, 3), got {frames.dtype} {frames.shape}")
    if len(frames) != trace.grid.num_video_frames:
        raise ValueError(f"the clip has {len(frames)} frames, its routing {trace.grid.num_video_frames}")
    return routing_tint(trace, mode, index=index, step=step, opacity=opacity).over(frames)


@dataclass(frozen=True)
class Tint:
    """What is laid over a clip, ready to be mixed with its pictures.

    Attributes:
        colours: of every token, uint8 RGB (T, H, W, 3).
        alpha: share of it in the mixture, float32 (T, H, W), 0 to 1.
        on_grey: whether the picture beneath is greyed.
    """

    colours: np.ndarray
    alpha: np.ndarray
    on_grey: bool = False

    @property
    def grid(self) -> TokenGrid:
        return TokenGrid(*self.alpha.shape)

    def over(self, frames: np.ndarray) -> np.ndarray:
        """Every frame with the tint over it: uint8 RGB (F, H, W, 3), at any enlargement of the generated size."""
        laid = np.empty_like(frames)
        for t in range(self.grid.frames):  # one latent frame at a time: a long clip in float32 would be gigabytes
            shown_at = self.grid.video_frames(t)
            laid[shown_at.start : shown_at.stop] = _mixed(frames[shown_at.start : shown_at.stop], self, t)
        return laid

    def over_frame(self, picture: np.ndarray, video_frame: int) -> np.ndarray:
        """:meth:`over` of a single frame, uint8 RGB (H, W, 3).

        Raises:
            IndexError: the grid has no such video frame.
        """
        return _mixed(picture[None], self, self.grid.latent_frame(video_frame))[0]


def default_opacity(mode: OverlayMode) -> float:
    """How strongly a mode is laid over the picture unless told otherwise: a greyed one bears more."""
    return 0.9 if mode == "phenomena" else 0.55


def routing_tint(
    trace: RoutingTrace,
    mode: OverlayMode,
    *,
    index: int | None = None,
    step: int = -1,
    opacity: float | None = None,
) -> Tint:
    """What :func:`overlay` lays over a clip; its arguments, and what it raises for them."""
    if opacity is None:
        opacity = default_opacity(mode)
    _check_opacity(opacity)
    strengths = token_strengths(trace, mode, index=index, step=step)
    alpha = np.ones_like(strengths)
    if mode == "phenomena":
        palette = np.array([rgb(phenomenon.colour) for phenomenon in phenomena.PHENOMENA], np.uint8)
        colours = palette[trace.phenomenon_maps[step].argmax(1).reshape(trace.grid.shape)]
        alpha = strengths
    elif mode == "top1":
        palette = np.array([rgb(expert_colour(e)) for e in range(trace.num_experts)], np.uint8)
        colours = palette[trace.top1(step)]
    elif mode in ("entropy", "margin"):
        colours = level_colours()[np.round(255 * strengths).astype(np.uint8)]
    else:
        colours = np.broadcast_to(np.array(_own_colour(mode, index), np.uint8), (*strengths.shape, 3))
        alpha = strengths
    return Tint(colours, opacity * alpha, on_grey=mode == "phenomena" and opacity > 0)


def level_tint(levels_THW: np.ndarray, opacity: float = 0.55) -> Tint:
    """Levels along the dark-to-bright scale, every token tinted alike.

    Args:
        levels_THW: uint8, one level a token.
        opacity: 0 to 1.

    Raises:
        ValueError: an opacity outside.
    """
    _check_opacity(opacity)
    return Tint(level_colours()[levels_THW], np.full(levels_THW.shape, opacity, np.float32))


def _check_opacity(opacity: float) -> None:
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity={opacity} must be from 0 to 1")


def _mixed(pictures: np.ndarray, tint: Tint, t: int) -> np.ndarray:
    """Lay latent frame ``t`` over the pictures (F, H, W, 3) that show it."""
    one = TokenGrid(1, *tint.alpha.shape[1:])
    height, width = pictures.shape[1:3]
    channels = [one.to_pixels(tint.colours[t, ..., c], height, width)[0] for c in range(3)]
    blend = one.to_pixels(tint.alpha[t], height, width)[0, ..., None]
    shown = np.stack(channels, axis=-1) * blend
    if tint.on_grey:
        pictures = greyed(pictures)
    return np.stack([np.round(picture * (1 - blend) + shown).astype(np.uint8) for picture in pictures])


def _own_colour(mode: OverlayMode, index: Any) -> tuple[int, int, int]:
    return rgb(expert_colour(index) if mode == "expert" else phenomena.PHENOMENA[index].colour)


def legend_entries(trace: RoutingTrace, mode: OverlayMode, *, index: int | None = None, step: int = -1) -> list[Entry]:
    """What the colours of :func:`overlay` mean; experts with their share of the clip's tokens, and phenomena with the
    peak of their map, largest first.

    Args:
        trace, mode, index, step: see :func:`token_strengths`, also for what it raises.
    """
    if mode == "phenomena":
        peaks = trace.phenomenon_maps[step].max(0)
        found = [int(p) for p in np.argsort(-peaks, kind="stable") if peaks[p] >= SHOWN_PEAK]
        names = [(phenomena.PHENOMENA[p], peaks[p]) for p in found]
        return [Entry(f"{one.name}: {_percent(peak)}", (rgb(one.colour),)) for one, peak in names]
    if mode == "top1":
        shares = np.bincount(trace.top1(step).ravel(), minlength=trace.num_experts) / trace.grid.num_tokens
        used = [int(e) for e in np.argsort(-shares, kind="stable") if shares[e] > 0]
        return [Entry(f"expert {e}: {_percent(shares[e])}", (rgb(expert_colour(e)),)) for e in used]
    if mode in ("entropy", "margin"):
        return [level_entry(f"{mode}, 0 to 1")]
    if mode == "expert":
        name = f"expert {_checked(index, trace.num_experts, 'expert')}"
    else:
        name = phenomena.PHENOMENA[_checked(index, len(phenomena.PHENOMENA), "phenomenon")].name
    return [Entry(f"{name}, 0 to 1", (PAPER, _own_colour(mode, index)))]


def level_entry(text: str) -> Entry:
    """The dark-to-bright scale in a legend."""
    return Entry(text, tuple(tuple(colour.tolist()) for colour in level_colours()[::15]))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 else "< 1 %"


def _checked(index: int | None, size: int, kind: str) -> int:
    if index is None or not 0 <= index < size:
        raise ValueError(f"index={index} is not one of the {size} {'phenomena' if kind == 'phenomenon' else 'experts'}")
    return index
