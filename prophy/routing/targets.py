"""Token targets: where each phenomenon acts, token by token, whoever says so: a world's masks, a vision-language model.

Shapes: N tokens, P phenomena.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from prophy import phenomena
from prophy.arrays import read_npz, write_described
from prophy.grid import TokenGrid

MAX_BYTES = 2**27  #: of an opened file: those of the longest clip of a published model have a fifteenth of it


@dataclass(frozen=True)
class TokenTargets:
    """``Q_r`` of eq. 5 for one clip.

    Attributes:
        values: float32 ``(N, P)``; zero or negative: not here.
        labelled: bool ``(P,)``: phenomena the clip is labelled with; the others say nothing.
        grid: the token grid.
        source: who made them: ``worlds``, or a model's name and revision.

    Raises:
        ValueError: shapes, types or values that contradict each other.
    """

    values: np.ndarray
    labelled: np.ndarray
    grid: TokenGrid
    source: str

    def __post_init__(self) -> None:
        expected = (self.grid.num_tokens, len(phenomena.PHENOMENA))
        if self.values.shape != expected or self.values.dtype != np.float32:
            raise ValueError(
                f"targets must be float32 of shape {expected}, not {self.values.dtype} {self.values.shape}"
            )
        if self.labelled.shape != expected[1:] or self.labelled.dtype != bool:
            raise ValueError(f"labelled must be bool of shape {expected[1:]}")
        if not np.isfinite(self.values).all():
            raise ValueError("targets hold values that are not numbers: annotate the clip again")
        if not isinstance(self.source, str) or not self.source:
            raise ValueError("targets need a source: name who made them")

    @classmethod
    def from_masks(cls, masks: dict[str, np.ndarray], grid: TokenGrid, source: str) -> TokenTargets:
        """Targets of a synthetic clip: the share of each token's pixels where a phenomenon acts.

        Args:
            masks: phenomenon id -> bool ``(F, H, W)``.

        Raises:
            KeyError: unknown phenomenon.
            ValueError: masks that do not fit the grid.
        """
        values = np.zeros((grid.num_tokens, len(phenomena.PHENOMENA)), np.float32)
        labelled = np.zeros(len(phenomena.PHENOMENA), bool)
        for name, mask in masks.items():
            index = phenomena.by_id(name).index
            values[:, index] = grid.pool_masks(mask[None])[0]
            labelled[index] = True
        return cls(values, labelled, grid, source)

    def resample(self, grid: TokenGrid) -> TokenTargets:
        """The same targets on another grid: linear in time and space, areas averaged when shrinking."""
        maps = np.moveaxis(self.values.reshape(*self.grid.shape, -1), -1, 1)
        shrinks = grid.height * grid.width < self.grid.height * self.grid.width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        size = (grid.width, grid.height)
        # one map at a time: OpenCV averages areas of at most four channels
        frames = np.array([[cv2.resize(m, size, interpolation=method) for m in frame] for frame in maps])
        frames = np.moveaxis(frames, 1, -1)
        at = (np.arange(grid.frames) + 0.5) * self.grid.frames / grid.frames - 0.5
        low = np.clip(np.floor(at).astype(int), 0, self.grid.frames - 1)
        high = np.minimum(low + 1, self.grid.frames - 1)
        share = np.clip(at - low, 0, 1).astype(np.float32)[:, None, None, None]
        values = ((1 - share) * frames[low] + share * frames[high]).reshape(grid.num_tokens, -1)
        return TokenTargets(values.astype(np.float32), self.labelled, grid, self.source)

    def save(self, path: Path) -> None:
        """Write an npz without pickles, whole or not at all."""
        about = {"grid": self.grid.shape, "source": self.source, "phenomena_version": phenomena.VERSION}
        write_described(path, about, {"values": self.values, "labelled": self.labelled})

    @classmethod
    def load(cls, path: Path) -> TokenTargets:
        """Read and check targets.

        Raises:
            ValueError: damaged, or made with another list of phenomena.
        """
        try:
            data = read_npz(path, MAX_BYTES)
            about = json.loads(str(data["about"]))
            values, labelled = data["values"], data["labelled"]
            grid, source, version = TokenGrid(*about["grid"]), about["source"], about["phenomena_version"]
        except FileNotFoundError:
            raise
        except Exception as error:
            reason = f" ({error})" if isinstance(error, ValueError) else ""
            raise ValueError(
                f"{Path(path).name} does not hold token targets{reason}: annotate the clip again"
            ) from error
        if version != phenomena.VERSION:
            raise ValueError(f"targets {Path(path).name} use phenomena {version!r}, not {phenomena.VERSION!r}")
        return cls(values, labelled, grid, source)
