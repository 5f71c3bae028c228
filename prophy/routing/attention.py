"""What the backbone attended to while a clip was made: words of the prompt, and other places of the clip (no torch).

Beside the routing, so that one can compare where a word is with where an expert acts. As DAAM (arXiv 2210.04885) does
for pictures, a word's map is the attention of the video tokens to it, averaged over blocks and heads; ours is kept for
single denoising steps, not summed. That a token attends to a word does not show that the word made it what it is.

Shapes: D kept steps, N tokens, W words, C cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from prophy.arrays import check_axes, damage_named, read_described, write_described
from prophy.grid import TokenGrid

SCHEMA = 1
MAX_STEPS = 8  #: denoising steps that are kept; of a longer run, evenly spaced ones
MAX_WORDS = 40  #: of a prompt; what comes after them is not kept
MAX_WORD_CHARS = 200  #: of a word; what is longer is cut
MAX_WORD_BYTES = 2**23  #: of all words' maps together: of a large clip fewer steps are kept
MAX_CELLS = 1024  #: of the map from everywhere to everywhere: of a larger grid, tokens share cells
MAX_BYTES = 2**25

_ARRAYS = {
    "steps": ("D", np.int32),
    "word_maps": ("DNW", np.uint8),
    "word_peaks": ("W", np.float32),
    "cell_maps": ("CC", np.uint8),
    "cell_peaks": ("C", np.float32),
}


@dataclass(frozen=True)
class Words:
    """The words of a prompt, and where the text encoder's tokens of each stand.

    Attributes:
        texts: the words, in order.
        places: of each word, the positions of its tokens in the encoded text.
    """

    texts: tuple[str, ...]
    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Cells:
    """A coarser grid over a token grid: squares of tokens, each latent frame by itself.

    Attributes:
        grid: the tokens.
        side: tokens on a side of a cell; at the right and lower edge a cell may have fewer.
    """

    grid: TokenGrid
    side: int

    @classmethod
    def of(cls, grid: TokenGrid, most: int = MAX_CELLS) -> Cells:
        """The finest cells of which a grid has at most so many: single tokens where that fits.

        Raises:
            ValueError: it has more latent frames than that.
        """
        side = 1
        while cls(grid, side).count > most:
            if side >= max(grid.height, grid.width):
                raise ValueError(f"{grid.frames} latent frames are more than the {most} cells that are kept")
            side *= 2
        return cls(grid, side)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Latent frames, rows, columns."""
        return self.grid.frames, -(-self.grid.height // self.side), -(-self.grid.width // self.side)

    @property
    def count(self) -> int:
        frames, rows, columns = self.shape
        return frames * rows * columns

    @cached_property
    def of_token(self) -> np.ndarray:
        """The cell of every token, int64 ``(N,)``."""
        t, h, w = np.unravel_index(np.arange(self.grid.num_tokens), self.grid.shape)
        return np.ravel_multi_index((t, h // self.side, w // self.side), self.shape)

    @cached_property
    def centres(self) -> np.ndarray:
        """The token in the middle of every cell, int64 ``(C,)``."""
        t, h, w = np.unravel_index(np.arange(self.count), self.shape)
        middle = self.side // 2
        h = np.minimum(h * self.side + middle, self.grid.height - 1)
        w = np.minimum(w * self.side + middle, self.grid.width - 1)
        return np.ravel_multi_index((t, h, w), self.grid.shape)


@dataclass(frozen=True)
class AttentionTrace:
    """The backbone's attention in one generation, conditional passes only.

    Attributes:
        grid: the token grid.
        prompt: of the generation.
        seed: of the generation.
        words: of the prompt, in order; one that stands there twice is there twice.
        total_steps: denoising steps of the generation.
        steps: ``(D,)`` numbers of the steps kept, from 1.
        word_maps: ``(D, N, W)`` how much each token attends to each word; 255 is the word's peak. What is left of 1
            goes to the end of the text and the padding after it.
        word_peaks: ``(W,)`` of all kept steps, shares of a token's attention.
        cell_side: tokens on a side of a cell, see :class:`Cells`.
        cell_maps: ``(C, C)`` how much the token in the middle of each cell attends to each cell, averaged over the kept
            steps; 255 is the row's peak.
        cell_peaks: ``(C,)``.

    Raises:
        ValueError: arrays that contradict each other or hold impossible values.
    """

    grid: TokenGrid
    prompt: str
    seed: int
    words: tuple[str, ...]
    total_steps: int
    steps: np.ndarray
    word_maps: np.ndarray
    word_peaks: np.ndarray
    cell_side: int
    cell_maps: np.ndarray
    cell_peaks: np.ndarray

    def __post_init__(self) -> None:
        if not 1 <= self.cell_side <= max(self.grid.shape):
            raise ValueError(f"cells of {self.cell_side} tokens do not fit the grid: the recording is damaged")
        sizes = {"N": self.grid.num_tokens, "W": len(self.words), "C": self.cells.count}
        check_axes(self, _ARRAYS, sizes, "recording")
        for name in ("word_peaks", "cell_peaks"):
            peaks = getattr(self, name)
            if not np.isfinite(peaks).all() or peaks.min() < 0 or peaks.max() > 1 + 1e-3:
                raise ValueError(f"{name} must lie in [0, 1]: the recording is damaged")
        if not all(isinstance(word, str) and 0 < len(word) <= MAX_WORD_CHARS for word in self.words):
            raise ValueError("words must be texts: the recording is damaged")
        rises = np.all(self.steps[1:] > self.steps[:-1])
        if not rises or self.steps[0] < 1 or self.steps[-1] > self.total_steps or self.total_steps > 100_000:
            raise ValueError(f"steps {self.steps} of {self.total_steps} are impossible: the recording is damaged")

    @property
    def cells(self) -> Cells:
        return Cells(self.grid, self.cell_side)

    def word_map(self, word: int, kept: int = -1) -> np.ndarray:
        """How much every token attends to a word at a kept step, a share of its attention, float32 ``(T, H, W)``."""
        levels = self.word_maps[kept, :, word].astype(np.float32) / 255
        return (self.word_peaks[word] * levels).reshape(self.grid.shape)

    def attended_from(self, token: int) -> np.ndarray:
        """How much a token's cell attends to each cell, shares that add up to 1 but for rounding, float32 (T, h, w)."""
        cell = self.cells.of_token[token]
        return (self.cell_peaks[cell] * self.cell_maps[cell].astype(np.float32) / 255).reshape(self.cells.shape)

    def attended_from_region(self, latent: int, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """Where a region's tokens look, averaged over its cells: shares as :meth:`attended_from`, float32 (T, h, w).

        Args:
            latent: latent frame of the region.
            rows, columns: its first and its last.

        Raises:
            IndexError: it does not lie in the grid.
        """
        corners = [self.grid.index(latent, h, w) for h in rows for w in columns]
        if corners[0] > corners[-1] or columns[0] > columns[1]:
            raise IndexError(f"rows {rows} and columns {columns} are no region: the first comes before the last")
        across = np.arange(rows[0], rows[1] + 1)[:, None] * self.grid.width + np.arange(columns[0], columns[1] + 1)
        cells = np.unique(self.cells.of_token[latent * self.grid.height * self.grid.width + across])
        shares = self.cell_peaks[cells, None] * self.cell_maps[cells].astype(np.float32) / 255
        return shares.mean(0).reshape(self.cells.shape)

    def save(self, path: Path) -> None:
        """Write an npz without pickles; an existing file is replaced whole or not at all."""
        about = {
            "schema": SCHEMA,
            "grid": self.grid.shape,
            "prompt": self.prompt,
            "seed": self.seed,
            "words": self.words,
            "total_steps": self.total_steps,
            "cell_side": self.cell_side,
        }
        write_described(path, about, {name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: Path) -> AttentionTrace:
        """Read and check a recording; needs no model.

        Raises:
            ValueError: damaged, too large, or of another version. One line.
            FileNotFoundError: no such file.
        """
        path = Path(path)
        with damage_named(path, "recording of attention"):
            about, arrays = read_described(path, MAX_BYTES, _ARRAYS)
            if about.pop("schema") != SCHEMA:
                raise ValueError("made by another release")
            if not isinstance(about["prompt"], str) or not isinstance(about["words"], list):
                raise ValueError("its description is malformed")
            if not all(type(about[name]) is int for name in ("seed", "total_steps", "cell_side")):
                raise ValueError("its description is malformed")
            grid, words = TokenGrid(*about.pop("grid")), tuple(about.pop("words"))
            return cls(grid=grid, words=words, **about, **arrays)


def kept_steps(total: int, tokens: int, words: int) -> tuple[int, ...]:
    """Which denoising steps to keep, by their numbers from 1: evenly spaced, the last among them.

    Args:
        total: steps of the generation.
        tokens, words: of the clip and of its prompt.

    Raises:
        ValueError: not even one step's maps stay below :data:`MAX_WORD_BYTES`.
    """
    most = min(total, MAX_STEPS, MAX_WORD_BYTES // max(1, tokens * words))
    if most < 1:
        raise ValueError(f"{words} words over {tokens} tokens are too much to record: shorten the prompt or the clip")
    return tuple(int(n) for n in np.unique(np.linspace(total, 1, most).round().astype(int)))


def quantised(values: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Levels of 255ths of a peak, uint8, and the peaks over some axes, float32."""
    peaks = values.max(axes, keepdims=True).astype(np.float32)
    levels = np.round(255 * values / np.maximum(peaks, 1e-12)).astype(np.uint8)
    return levels, peaks.squeeze(axes)
