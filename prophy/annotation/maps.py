"""Two attention maps become one target: subtract, resample to the diffusion model's token grid, scale (no torch).

Shapes: T, h, w the grid of video tokens; N tokens of the diffusion model.
"""

from __future__ import annotations

import cv2
import numpy as np

from prophy.grid import TokenGrid


def subtract(foreground_Thw: np.ndarray, background_Thw: np.ndarray, *, relative: bool) -> np.ndarray:
    """What an answer looks at more than the description of the whole video does; negative: less.

    Args:
        relative: compare shares of each map's sum instead of the attention itself.
    """
    if relative:
        foreground_Thw, background_Thw = foreground_Thw / foreground_Thw.sum(), background_Thw / background_Thw.sum()
    return foreground_Thw - background_Thw


def resample(map_Thw: np.ndarray, centres_T: np.ndarray, num_frames: int, grid: TokenGrid) -> np.ndarray:
    """A map on the grid of video tokens, on the diffusion model's token grid.

    In time, linear between the middles of temporal patches and constant beyond the first and the last; a latent frame
    is where the middle of its video frames is. A clip with another number of frames than the grid's video covers the
    same time. In space as :meth:`prophy.routing.targets.TokenTargets.resample`: areas averaged when shrinking, else
    linear.

    Args:
        centres_T: where each temporal patch lies, in frames of the clip, increasing.
        num_frames: frames of the clip.

    Returns:
        float32 ``(N,)``.
    """
    middles = np.array([np.mean(grid.video_frames(t)) for t in range(grid.frames)])
    last = grid.num_video_frames - 1
    at = middles * (num_frames - 1) / last if last else np.array([(num_frames - 1) / 2])
    place = np.interp(at, centres_T, np.arange(len(centres_T)))
    low = np.minimum(place.astype(int), max(0, len(centres_T) - 2))
    high = np.minimum(low + 1, len(centres_T) - 1)
    share = (place - low)[:, None, None]
    frames = ((1 - share) * map_Thw[low] + share * map_Thw[high]).astype(np.float32)
    method = cv2.INTER_AREA if grid.height * grid.width < map_Thw[0].size else cv2.INTER_LINEAR
    frames = [cv2.resize(frame, (grid.width, grid.height), interpolation=method) for frame in frames]
    return np.stack(frames).reshape(grid.num_tokens).astype(np.float32)


def scale_to_peak(values_N: np.ndarray) -> np.ndarray:
    """Values whose largest is 1; unchanged where none is positive."""
    peak = values_N.max()
    return values_N / peak if peak > 0 else values_N
