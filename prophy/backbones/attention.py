"""Records what a stock transformer attends to while it works: the prompt's words, and other places of the clip.

Queries and keys are taken where the layers have them anyway, after their norms, by hooks that change nothing: the stock
attention processors stay in place, whatever moves the weights goes on doing so, and the outputs are the very ones
without the recording. What is recorded is reduced at once, block by block.

Shapes: N tokens, L text length, W words, C cells, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from prophy.backbones.backbone import is_compiled
from prophy.branch.family import FAMILIES
from prophy.grid import TokenGrid
from prophy.routing.attention import AttentionTrace, Cells, Words, kept_steps, quantised

Rotate = Callable[[torch.Tensor, torch.Tensor | slice], torch.Tensor]

_MOST_WEIGHTS = 2**24  # attention weights that are held at once


class AttentionRecorder:
    """What :func:`record_attention` collects.

    Args:
        grid: the token grid.
        words: of each clip of the batch.
        total: denoising steps to come.

    Raises:
        ValueError: the clip or the prompt is too large to record, or a prompt has no word.
    """

    def __init__(self, grid: TokenGrid, words: Sequence[Words], total: int) -> None:
        if not all(one.texts for one in words):
            raise ValueError("the prompt has no word whose attention could be recorded")
        self._grid, self._words, self._total = grid, words, total
        self._cells = Cells.of(grid)
        self._wanted = set(kept_steps(total, grid.num_tokens, max(len(one.texts) for one in words)))
        self._steps: list[int] = []
        self._word_maps: list[list[np.ndarray]] = [[] for _ in words]  # by clip, of each step (N, W)
        self._cell_maps = [np.zeros((self._cells.count, self._cells.count), np.float32) for _ in words]
        self._text: torch.Tensor | None = None  # of the conditional passes
        self._step, self._blocks = 0, 0
        self._listens = False
        self._to_words: list[torch.Tensor] = []
        self._to_cells: list[torch.Tensor] = []

    def finish(self, clip: int, prompt: str, seed: int) -> AttentionTrace:
        """What was recorded of one clip of the batch.

        Raises:
            ValueError: no conditional pass came.
        """
        if not self._steps:
            raise ValueError("no denoising step was recorded: the transformer was not called")
        word_maps, word_peaks = quantised(np.stack(self._word_maps[clip]), (0, 1))
        cell_maps, cell_peaks = quantised(self._cell_maps[clip] / len(self._steps), (1,))
        return AttentionTrace(
            grid=self._grid,
            prompt=prompt,
            seed=seed,
            words=self._words[clip].texts,
            total_steps=max(self._total, self._steps[-1]),
            steps=np.array(self._steps, np.int32),
            word_maps=word_maps,
            word_peaks=word_peaks,
            cell_side=self._cells.side,
            cell_maps=cell_maps,
            cell_peaks=cell_peaks,
        )

    # --- as the transformer goes on -----------------------------------------------------------------------------------

    def begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before a pass. The first of a generation is conditional, and its text tells the others from the rest."""
        text = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[2]
        if self._text is None:
            self._text = text
        is_conditional = text is self._text or (text.shape == self._text.shape and torch.equal(text, self._text))
        self._step += is_conditional
        self._listens = is_conditional and self._step in self._wanted
        self._blocks, self._to_words, self._to_cells = 0, [], []

    def end(self, module: nn.Module, args: tuple, output: Any) -> None:
        """After a pass."""
        if not self._listens or not self._blocks:
            return
        self._listens = False
        self._steps.append(self._step)
        for clip, (to_words_NW, to_cells_CC) in enumerate(zip(self._to_words, self._to_cells, strict=True)):
            self._word_maps[clip].append((to_words_NW / self._blocks).cpu().numpy())
            self._cell_maps[clip] += (to_cells_CC / self._blocks).cpu().numpy()

    @property
    def listens(self) -> bool:
        """Whether the pass under way is to be recorded."""
        return self._listens

    def add_cross(self, query_BNHD: torch.Tensor, key_BLHD: torch.Tensor) -> None:
        """Take one block's attention to the text."""
        count = len(self._words)
        for clip, words in enumerate(self._words, -count):  # conditional rows come last
            query_HND, key_HLD = (x[clip].transpose(0, 1).float() for x in (query_BNHD, key_BLHD))
            picks_LW = torch.zeros(key_HLD.shape[1], len(words.texts), device=key_HLD.device)
            for word, places in enumerate(words.places):
                picks_LW[list(places), word] = 1
            parts = [
                _weights(part_HnD, key_HLD).mean(0) @ picks_LW for part_HnD in query_HND.split(_at_once(key_HLD), dim=1)
            ]
            self._sum_up(self._to_words, clip + count, torch.cat(parts))

    def add_self(self, query_BNHD: torch.Tensor, key_BNHD: torch.Tensor, rotate: Rotate) -> None:
        """Take one block's attention from the middle of every cell to every cell.

        Args:
            query_BNHD, key_BNHD: of the layer, before their positions.
            rotate: gives them those of some tokens.
        """
        count, device = len(self._words), query_BNHD.device
        centres = torch.from_numpy(self._cells.centres).to(device)
        of_token = torch.from_numpy(self._cells.of_token).to(device)
        for clip in range(-count, 0):
            query_HCD = rotate(query_BNHD[clip, centres], centres).transpose(0, 1).float()
            key_HND = rotate(key_BNHD[clip], slice(None)).transpose(0, 1).float()
            parts = []
            for part_HcD in query_HCD.split(_at_once(key_HND), dim=1):
                weights_cN = _weights(part_HcD, key_HND).mean(0)
                to_cells = torch.zeros(len(weights_cN), self._cells.count, device=device)
                parts.append(to_cells.index_add_(1, of_token, weights_cN))
            self._sum_up(self._to_cells, clip + count, torch.cat(parts))
        self._blocks += 1

    def _sum_up(self, sums: list[torch.Tensor], clip: int, part: torch.Tensor) -> None:
        if clip == len(sums):
            sums.append(part)
        else:
            sums[clip] += part


def _at_once(key_HLD: torch.Tensor) -> int:
    """How many queries have no more weights than are held at once."""
    return max(1, _MOST_WEIGHTS // (key_HLD.shape[0] * key_HLD.shape[1]))


def _weights(query_HND: torch.Tensor, key_HLD: torch.Tensor) -> torch.Tensor:
    return (query_HND @ key_HLD.transpose(-1, -2) * query_HND.shape[-1] ** -0.5).softmax(-1)


class _Layer:
    """One attention layer: what its norms gave, until its attention is over."""

    def __init__(self, layer: nn.Module, recorder: AttentionRecorder, family: Any, *, is_cross: bool) -> None:
        self._layer, self._recorder, self._family, self._is_cross = layer, recorder, family, is_cross
        self._query: torch.Tensor | None = None
        self._key: torch.Tensor | None = None

    def hooks(self) -> list[Any]:
        """Listen to it; the handles that end this."""
        return [
            self._layer.norm_q.register_forward_hook(self._take_query),
            self._layer.norm_k.register_forward_hook(self._take_key),
            self._layer.register_forward_hook(self._end, with_kwargs=True),
        ]

    def _take_query(self, module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        if self._recorder.listens:
            self._query = output

    def _take_key(self, module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        if self._recorder.listens:
            self._key = output

    def _end(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if self._query is None or self._key is None:
            return
        query_BNHD, key_BNHD = (x.unflatten(2, (self._layer.heads, -1)) for x in (self._query, self._key))
        self._query = self._key = None  # as large as the layer's own: not to be held
        if self._is_cross:
            self._recorder.add_cross(query_BNHD, key_BNHD)
            return
        positions = self._family.positions(args, kwargs)

        def rotate(x_NHD: torch.Tensor, tokens: torch.Tensor | slice) -> torch.Tensor:
            return x_NHD if positions is None else self._family.rotated(x_NHD, *(part[tokens] for part in positions))

        self._recorder.add_self(query_BNHD, key_BNHD, rotate)


def check_records(transformer: nn.Module) -> None:
    """Refuse a transformer whose attention is not recorded.

    Raises:
        ValueError: it has no cross-attention of its own, such as CogVideoX's; its tokens are spread over processes; or
            a cache leaves attention out, or compiled blocks do not call hooks.
    """
    family = FAMILIES.get(type(transformer).__name__)
    if family is None or not all(hasattr(family, name) for name in ("cross_attentions", "self_attentions", "rotated")):
        raise ValueError(
            f"{type(transformer).__name__} has no cross-attention to record: use a Wan model, or record no attention"
        )
    if getattr(transformer, "_parallel_config", None) is not None:
        raise ValueError("context parallelism spreads the tokens over processes: record the attention in one process")
    if getattr(transformer, "is_cache_enabled", False):
        raise ValueError("a cache leaves attention out: call the transformer's disable_cache(), or record no attention")
    if is_compiled(transformer):
        raise ValueError("compiled blocks do not call hooks: open the model without compiling, or record no attention")


@contextmanager
def record_attention(
    transformers: Sequence[nn.Module], grid: TokenGrid, words: Sequence[Words], total: int
) -> Iterator[AttentionRecorder]:
    """Record the attention of the conditional passes of one generation.

    Args:
        transformers: those of the pipeline, which take turns along the noise.
        grid: the token grid of its clips.
        words: of each clip of the batch.
        total: denoising steps to come.

    Raises:
        ValueError: see :func:`check_records` and :class:`AttentionRecorder`.
    """
    recorder = AttentionRecorder(grid, words, total)
    handles: list[Any] = []
    try:
        for transformer in transformers:
            check_records(transformer)
            family: Any = FAMILIES[type(transformer).__name__]
            handles.append(transformer.register_forward_pre_hook(recorder.begin, with_kwargs=True))
            handles.append(transformer.register_forward_hook(recorder.end))
            for layer in family.self_attentions(transformer):
                handles += _Layer(layer, recorder, family, is_cross=False).hooks()
            for layer in family.cross_attentions(transformer):
                handles += _Layer(layer, recorder, family, is_cross=True).hooks()
        yield recorder
    finally:
        for handle in handles:
            handle.remove()
