"""A clip as a vision-language model takes it: sampled, resized, normalised, cut into patches, without torchvision.

Shapes: F frames, H and W pixels, 3 colours; T, h, w the grid of video tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers.image_transforms import resize
from transformers.image_utils import ChannelDimension, PILImageResampling
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from prophy.annotation.config import AnnotationConfig
from prophy.annotation.families import Family


@dataclass(frozen=True)
class PatchSizes:
    """Pixels on a side of a patch, patches on a side of a video token, frames of a temporal patch."""

    patch: int
    merge: int
    temporal: int

    @property
    def token(self) -> int:
        """Pixels on a side of a video token."""
        return self.patch * self.merge


@dataclass(frozen=True)
class PackedClip:
    """What the vision tower reads.

    Attributes:
        patches: float32 ``(T·H/patch·W/patch, 3·temporal·patch·patch)``: ``pixel_values_videos``.
        patch_grid: temporal patches, patch rows, patch columns: ``video_grid_thw``.
        grid: the same in video tokens, ``(T, h, w)``.
        frame_indices: the clip's frames that are shown, ``T·temporal`` of them; the last may be repeated.
        num_frames: frames of the whole clip.
        fps: frames per second of the whole clip.
    """

    patches: np.ndarray
    patch_grid: tuple[int, int, int]
    grid: tuple[int, int, int]
    frame_indices: tuple[int, ...]
    num_frames: int
    fps: float

    @property
    def centres(self) -> np.ndarray:
        """Where each temporal patch lies, in frames of the clip."""
        return np.array(self.frame_indices, float).reshape(self.grid[0], -1).mean(1)

    @property
    def seconds(self) -> list[float]:
        """Where each temporal patch lies, in seconds from the first frame."""
        return [float(centre) / self.fps for centre in self.centres]

    @property
    def seconds_per_patch(self) -> float:
        """Duration a temporal patch stands for."""
        return self.num_frames / self.fps / self.grid[0]


def frame_indices(num_frames: int, fps: float, temporal: int, config: AnnotationConfig) -> np.ndarray:
    """Which frames are shown: evenly spread from the first to the last, whole temporal patches of them.

    As the families' own sampler: ``duration · config.fps`` frames, between ``min_frames`` and ``max_frames`` and never
    more than there are. Rounded down to whole temporal patches; a clip shorter than one repeats its last frame.
    """
    wanted = min(max(int(num_frames / fps * config.fps), config.min_frames), config.max_frames, num_frames)
    wanted = max(wanted - wanted % temporal, min(temporal, num_frames))
    indices = np.linspace(0, num_frames - 1, wanted).round().astype(int)
    return np.pad(indices, (0, -len(indices) % temporal), mode="edge")


def pack_frames(frames_FHW3: np.ndarray, sizes: PatchSizes, family: Family) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Normalise frames and cut them into patches, in the order of ``Qwen2VLImageProcessorPil``.

    Args:
        frames_FHW3: uint8, whole temporal patches of frames and whole video tokens of pixels.

    Returns:
        Patches and their grid, as in :class:`PackedClip`.
    """
    count, height, width, _ = frames_FHW3.shape
    grid = (count // sizes.temporal, height // sizes.patch, width // sizes.patch)
    # The processor's arithmetic to the last bit, once for each of the 256 values of a pixel.
    values = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)[:, None]
    table = (values - np.array(family.image_mean, np.float32)) / np.array(family.image_std, np.float32)
    split: tuple[int, ...] = (grid[0], sizes.temporal)
    for patches in grid[1:]:
        split += (patches // sizes.merge, sizes.merge, sizes.patch)
    pixels = table[frames_FHW3, np.arange(3)].reshape(*split, 3)
    # time, token row, token column, row and column in the token, colour, frame, row and column in the patch
    pixels = pixels.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return np.ascontiguousarray(pixels).reshape(grid[0] * grid[1] * grid[2], -1), grid


def pack_clip(
    frames_FHW3: np.ndarray, fps: float, sizes: PatchSizes, family: Family, config: AnnotationConfig
) -> PackedClip:
    """Sample a clip, resize it to the pixel budget (Pillow's bicubic, as the processor does) and pack it.

    Raises:
        ValueError: no frames, frames that are not uint8 RGB, or a frame rate that is not positive.
    """
    if frames_FHW3.ndim != 4 or frames_FHW3.shape[-1] != 3 or frames_FHW3.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 (F, H, W, 3), not {frames_FHW3.dtype} {frames_FHW3.shape}")
    if 0 in frames_FHW3.shape:
        raise ValueError("the clip has no frames: leave it out, or read it again")
    if not fps > 0:
        raise ValueError(f"fps={fps} of a clip must be above 0: pass the rate it plays at")
    indices = frame_indices(len(frames_FHW3), fps, sizes.temporal, config)
    size = smart_resize(
        *frames_FHW3.shape[1:3],
        factor=sizes.token,
        min_pixels=config.min_frame_tokens * sizes.token**2,
        max_pixels=config.max_frame_tokens * sizes.token**2,
    )
    last = ChannelDimension.LAST
    shown = [
        frame
        if frame.shape[:2] == size
        else resize(frame, size, PILImageResampling.BICUBIC, data_format=last, input_data_format=last)
        for frame in frames_FHW3[indices]
    ]
    patches, patch_grid = pack_frames(np.stack(shown), sizes, family)
    grid = (patch_grid[0], patch_grid[1] // sizes.merge, patch_grid[2] // sizes.merge)
    return PackedClip(patches, patch_grid, grid, tuple(indices.tolist()), len(frames_FHW3), fps)
