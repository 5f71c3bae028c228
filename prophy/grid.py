"""The latent token grid: tokens to latent frames to pixels and video frames. All geometry lives here (no torch)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

MAX_SIDE = 2**16  #: of a token grid, in tokens and latent frames
TEMPORAL = 4  #: video frames in a latent frame, after the first: Wan2.1 and CogVideoX


@dataclass(frozen=True)
class TokenGrid:
    """Tokens of a video transformer, counted frame by frame, row by row: ``n = (t·height + h)·width + w``.

    Attributes:
        frames: latent frames.
        height: token rows.
        width: token columns.

    Raises:
        ValueError: a size is not a positive integer, or too large.
    """

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_SIDE:
                raise ValueError(f"{name}={value!r} of a token grid must be a positive integer of at most {MAX_SIDE}")

    @classmethod
    def from_video(cls, num_frames: int, height: int, width: int, cell: int) -> TokenGrid:
        """The grid of a video.

        Args:
            num_frames: video frames, ``1 + 4k``.
            height: pixels.
            width: pixels.
            cell: pixels on a side of one token: the autoencoder's factor times the transformer's patch.

        Raises:
            ValueError: a size does not divide.
        """
        if num_frames < 1 or (num_frames - 1) % TEMPORAL:
            raise ValueError(f"num_frames={num_frames} is not 1 + {TEMPORAL}k: use {nearest_length(num_frames)}")
        if height % cell or width % cell:
            raise ValueError(f"{width}×{height} pixels do not divide into {cell}-pixel tokens: use multiples of {cell}")
        return cls(1 + (num_frames - 1) // TEMPORAL, height // cell, width // cell)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.frames, self.height, self.width

    @property
    def num_tokens(self) -> int:
        return self.frames * self.height * self.width

    @property
    def num_video_frames(self) -> int:
        return 1 + TEMPORAL * (self.frames - 1)

    def index(self, t: int, h: int, w: int) -> int:
        """Token number of a position.

        Raises:
            IndexError: outside the grid.
        """
        if not (0 <= t < self.frames and 0 <= h < self.height and 0 <= w < self.width):
            raise IndexError(f"token ({t}, {h}, {w}) lies outside a grid of {self.shape}")
        return (t * self.height + h) * self.width + w

    def position(self, token: int) -> tuple[int, int, int]:
        """Latent frame, row and column of a token.

        Raises:
            IndexError: outside the grid.
        """
        if not 0 <= token < self.num_tokens:
            raise IndexError(f"token {token} lies outside a grid of {self.num_tokens} tokens")
        t, rest = divmod(token, self.height * self.width)
        return t, *divmod(rest, self.width)

    def latent_frame(self, video_frame: int) -> int:
        """The latent frame that a video frame shows: 0 for the first, then one for every four.

        Raises:
            IndexError: no such video frame.
        """
        if not 0 <= video_frame < self.num_video_frames:
            raise IndexError(f"video frame {video_frame} lies outside a clip of {self.num_video_frames} frames")
        return 0 if video_frame == 0 else 1 + (video_frame - 1) // TEMPORAL

    def video_frames(self, latent_frame: int) -> range:
        """The video frames that show a latent frame.

        Raises:
            IndexError: no such latent frame.
        """
        if not 0 <= latent_frame < self.frames:
            raise IndexError(f"latent frame {latent_frame} lies outside a grid of {self.frames}")
        return range(1) if latent_frame == 0 else range(1 + TEMPORAL * (latent_frame - 1), 1 + TEMPORAL * latent_frame)

    def pool_masks(self, masks_PFHW: np.ndarray) -> np.ndarray:
        """Share of each token's pixels and frames where a mask is set.

        Args:
            masks_PFHW: bool or float, one mask a phenomenon and video frame.

        Returns:
            float32 ``(P, N)``.

        Raises:
            ValueError: the masks have another number of frames.
        """
        phenomena, frames = masks_PFHW.shape[:2]
        if frames != self.num_video_frames:
            raise ValueError(f"masks of {frames} frames do not fit a grid of {self.num_video_frames} video frames")
        cells = np.empty((phenomena, self.frames, self.height, self.width), np.float32)
        for p in range(phenomena):
            for t in range(self.frames):
                mean = masks_PFHW[p, self.video_frames(t)].astype(np.float32).mean(0)
                cells[p, t] = cv2.resize(mean, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return cells.reshape(phenomena, self.num_tokens)

    def to_pixels(self, values_N: np.ndarray, height: int, width: int) -> np.ndarray:
        """Show token values on every video frame, nearest neighbour: what is shown is what was recorded.

        Returns:
            ``(F, height, width)`` of the input's dtype.
        """
        cells = np.asarray(values_N).reshape(self.shape)
        rows = (np.arange(height) * self.height) // height
        columns = (np.arange(width) * self.width) // width
        frames = np.array([self.latent_frame(f) for f in range(self.num_video_frames)])
        return cells[np.ix_(frames, rows, columns)]


def nearest_length(frames: int, step: int = TEMPORAL) -> int:
    """The nearest number of video frames that is ``1 + step·k``: the longer of two, and no still for a clip."""
    return 1 + step * max(int(frames > 1), (frames - 1 + step // 2) // step)
