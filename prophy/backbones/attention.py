"""Records what a stock transformer attends to while it works: the prompt's words, and other places of the clip.

Queries and keys are taken where the layers have them anyway, after their norms, by hooks that change nothing: the stock
attention processors stay in place, whatever moves the weights goes on doing so, and the outputs are the very ones
without the recording. They are reduced at once, a few heads at a time, and nothing of their size is held: a moment
later, with queries and keys in their positions beside these, the layer itself takes more memory than that.

Shapes: N tokens, L text length, W words, C cells, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from prophy.backbones.backbone import is_compiled
from prophy.branch.family import FAMILIES
from prophy.grid import TokenGrid
from prophy.routing.attention import AttentionTrace, Cells, Words, kept_steps, quantised

Rotate = Callable[[torch.Tensor, torch.Tensor | slice], torch.Tensor]

_MOST_WEIGHTS = 2**22  # attention weights that are computed at once: in float32, 16 MiB


# --- listening --------------------------------------------------------------------------------------------------------


class Listener(Protocol):
    """What takes the attention of a transformer's conditional passes, block by block.

    Attributes:
        hears_places: whether attention to other places of the clip is taken too.
    """

    hears_places: bool

    def begin(self) -> bool:
        """Before a conditional pass: whether to listen to it."""
        ...

    def add_cross(self, query_BNHD: torch.Tensor, key_BLHD: torch.Tensor) -> None:
        """Take one block's attention to the text."""
        ...

    def add_self(self, query_BNHD: torch.Tensor, key_BNHD: torch.Tensor, rotate: Rotate) -> None:
        """Take one block's attention to all places, which comes before that to the text.

        Args:
            query_BNHD, key_BNHD: of the layer, before their positions.
            rotate: gives ``(n, H, D)`` of some tokens their positions.
        """
        ...

    def end(self) -> None:
        """After a pass that was listened to."""
        ...


class Passes:
    """Tells the conditional passes from the others, by their text.

    Where the negative prompt is the prompt, both texts are the same; the pass on the latents of the one before is then
    the unconditional one.

    Args:
        listener: is told of them.
        text_BLD: of the conditional passes; None: the first pass is one.

    Attributes:
        listens: whether the pass under way is taken.
    """

    def __init__(self, listener: Listener, text_BLD: torch.Tensor | None = None) -> None:
        self.listens = False
        self._listener, self._text_BLD = listener, text_BLD
        self._latents: torch.Tensor | None = None  # of the last conditional pass

    def begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before a pass."""
        latents, _, text_BLD = FAMILIES[type(module).__name__].call_arguments(args, kwargs)
        if self._text_BLD is None:
            self._text_BLD = text_BLD
        is_conditional = _same(self._text_BLD, text_BLD) and not (
            self._latents is not None and _same(self._latents, latents)
        )
        if is_conditional:
            self._latents = latents
        self.listens = is_conditional and self._listener.begin()

    def end(self, module: nn.Module, args: tuple, output: Any) -> None:
        """After a pass."""
        if self.listens:
            self.listens = False
            self._listener.end()


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (one.shape == other.shape and torch.equal(one.to(other), other))


class _Layer:
    """One attention layer: what its norms gave, until both have."""

    def __init__(self, layer: nn.Module, passes: Passes, listener: Listener, family: Any, *, is_cross: bool) -> None:
        self._layer, self._passes, self._listener = layer, passes, listener
        self._family, self._is_cross = family, is_cross
        self._positions: tuple[torch.Tensor, ...] | None = None
        self._query: torch.Tensor | None = None

    def hooks(self) -> list[Any]:
        """Listen to it; the handles that end this."""
        return [
            self._layer.register_forward_pre_hook(self._begin, with_kwargs=True),
            self._layer.norm_q.register_forward_hook(self._take_query),
            self._layer.norm_k.register_forward_hook(self._take_key),
        ]

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self._passes.listens and not self._is_cross:
            self._positions = self._family.positions(args, kwargs)

    def _take_query(self, module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        if self._passes.listens:
            self._query = output

    def _take_key(self, module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        """The stock processors make the queries first."""
        if self._query is None:
            return
        query_BNHD, key_BNHD = (x.unflatten(2, (self._layer.heads, -1)) for x in (self._query, output))
        positions, self._query, self._positions = self._positions, None, None
        if self._is_cross:
            self._listener.add_cross(query_BNHD, key_BNHD)
            return

        def rotate(x_NHD: torch.Tensor, tokens: torch.Tensor | slice) -> torch.Tensor:
            return x_NHD if positions is None else self._family.rotated(x_NHD, *(part[tokens] for part in positions))

        self._listener.add_self(query_BNHD, key_BNHD, rotate)


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
def listening(
    transformers: Sequence[nn.Module], listener: Listener, text_BLD: torch.Tensor | None = None
) -> Iterator[Passes]:
    """Let a listener take the attention of every conditional pass inside the block.

    Args:
        transformers: those of a pipeline, which take turns along the noise.
        listener: takes it.
        text_BLD: see :class:`Passes`.

    Raises:
        ValueError: see :func:`check_records`.
    """
    passes = Passes(listener, text_BLD)
    handles: list[Any] = []
    try:
        for transformer in transformers:
            check_records(transformer)
            family: Any = FAMILIES[type(transformer).__name__]
            handles.append(transformer.register_forward_pre_hook(passes.begin, with_kwargs=True))
            handles.append(transformer.register_forward_hook(passes.end))
            for layer in family.self_attentions(transformer) if listener.hears_places else []:
                handles += _Layer(layer, passes, listener, family, is_cross=False).hooks()
            for layer in family.cross_attentions(transformer):
                handles += _Layer(layer, passes, listener, family, is_cross=True).hooks()
        yield passes
    finally:
        for handle in handles:
            handle.remove()


# --- weights ----------------------------------------------------------------------------------------------------------


def attention_to_words(query_NHD: torch.Tensor, key_LHD: torch.Tensor, picks_LW: torch.Tensor) -> torch.Tensor:
    """How much each token of a clip attends to words, mean over heads, float32 ``(N, W)``.

    Args:
        query_NHD: of the clip's tokens.
        key_LHD: of the text's.
        picks_LW: how much each token of the text counts for each word.
    """
    to_words_NW = torch.zeros(len(query_NHD), picks_LW.shape[1], device=query_NHD.device)
    picks_LW = picks_LW.to(to_words_NW)
    for rows, weights_nL in _weights_in_parts(query_NHD, key_LHD):
        to_words_NW[rows] += weights_nL @ picks_LW
    return to_words_NW / query_NHD.shape[1]


def _weights_in_parts(
    query_QHD: torch.Tensor,
    key_KHD: torch.Tensor,
    placed: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = lambda query, key: (query, key),
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Attention weights, summed over some heads, of some queries at a time; each query comes until no head is left.

    Args:
        query_QHD, key_KHD: of one clip.
        placed: gives queries and keys of some heads their positions.

    Yields:
        Which queries, and their weights, float32 ``(q, K)``.
    """
    (queries, heads, width), keys = query_QHD.shape, len(key_KHD)
    together = max(1, _MOST_WEIGHTS // (queries * keys))
    for first in range(0, heads, together):
        some = slice(first, first + together)
        query_HQD, key_HKD = (x.transpose(0, 1).float() for x in placed(query_QHD[:, some], key_KHD[:, some]))
        query_HQD = query_HQD * width**-0.5
        count = max(1, _MOST_WEIGHTS // (len(query_HQD) * keys))
        for start in range(0, queries, count):
            rows = slice(start, start + count)
            yield rows, (query_HQD[:, rows] @ key_HKD.transpose(-1, -2)).softmax(-1).sum(0)


# --- of a generation --------------------------------------------------------------------------------------------------


class AttentionRecorder:
    """What :func:`record_attention` collects.

    Args:
        grid: the token grid.
        words: of each clip of the batch.
        total: denoising steps to come.

    Raises:
        ValueError: the clip or the prompt is too large to record, or a prompt has no word.
    """

    hears_places = True

    def __init__(self, grid: TokenGrid, words: Sequence[Words], total: int) -> None:
        if not all(one.texts for one in words):
            raise ValueError("the prompt has no word whose attention could be recorded")
        self._grid, self._words, self._total = grid, words, total
        self._cells = Cells.of(grid)
        self._wanted = set(kept_steps(total, grid.num_tokens, max(len(one.texts) for one in words)))
        self._steps: list[int] = []
        self._word_maps: list[list[np.ndarray]] = [[] for _ in words]  # by clip, of each step (N, W)
        self._cell_maps = [np.zeros((self._cells.count, self._cells.count), np.float32) for _ in words]
        self._step, self._blocks = 0, 0
        self._to_words: list[torch.Tensor] = []
        self._to_cells: list[torch.Tensor] = []

    def finish(self, clip: int, prompt: str, seed: int) -> AttentionTrace:
        """What was recorded of one clip of the batch.

        Raises:
            ValueError: no conditional pass came, or more than one a step.
        """
        if not self._steps:
            raise ValueError("no denoising step was recorded: the transformer was not called")
        if self._step != self._total:
            raise ValueError(
                f"{self._step} conditional passes in {self._total} steps: the pipeline changed how it calls its "
                "transformer"
            )
        word_maps, word_peaks = quantised(np.stack(self._word_maps[clip]), (0, 1))
        cell_maps, cell_peaks = quantised(self._cell_maps[clip] / len(self._steps), (1,))
        return AttentionTrace(
            grid=self._grid,
            prompt=prompt,
            seed=seed,
            words=self._words[clip].texts,
            total_steps=self._total,
            steps=np.array(self._steps, np.int32),
            word_maps=word_maps,
            word_peaks=word_peaks,
            cell_side=self._cells.side,
            cell_maps=cell_maps,
            cell_peaks=cell_peaks,
        )

    # --- as a Listener ------------------------------------------------------------------------------------------------

    def begin(self) -> bool:
        self._step += 1
        self._blocks, self._to_words, self._to_cells = 0, [], []
        return self._step in self._wanted

    def end(self) -> None:
        if not self._blocks:
            return
        self._steps.append(self._step)
        for clip, (to_words_NW, to_cells_CC) in enumerate(zip(self._to_words, self._to_cells, strict=True)):
            self._word_maps[clip].append((to_words_NW / self._blocks).cpu().numpy())
            self._cell_maps[clip] += (to_cells_CC / self._blocks).cpu().numpy()

    def add_cross(self, query_BNHD: torch.Tensor, key_BLHD: torch.Tensor) -> None:
        count = len(self._words)
        for clip, words in enumerate(self._words, -count):  # conditional rows come last
            picks_LW = torch.zeros(key_BLHD.shape[1], len(words.texts))
            for word, places in enumerate(words.places):
                picks_LW[list(places), word] = 1
            self._sum_up(self._to_words, clip + count, attention_to_words(query_BNHD[clip], key_BLHD[clip], picks_LW))

    def add_self(self, query_BNHD: torch.Tensor, key_BNHD: torch.Tensor, rotate: Rotate) -> None:
        """From the middle of every cell to every cell."""
        count, device = len(self._words), query_BNHD.device
        centres = torch.from_numpy(self._cells.centres).to(device)
        of_token = torch.from_numpy(self._cells.of_token).to(device)

        def placed(query_CHD: torch.Tensor, key_NHD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return rotate(query_CHD, centres), rotate(key_NHD, slice(None))

        for clip in range(-count, 0):
            to_cells_CC = torch.zeros(self._cells.count, self._cells.count, device=device)
            for rows, weights_cN in _weights_in_parts(query_BNHD[clip, centres], key_BNHD[clip], placed):
                to_cells_CC[rows].index_add_(1, of_token, weights_cN)
            self._sum_up(self._to_cells, clip + count, to_cells_CC / query_BNHD.shape[2])
        self._blocks += 1

    def _sum_up(self, sums: list[torch.Tensor], clip: int, part: torch.Tensor) -> None:
        if clip == len(sums):
            sums.append(part)
        else:
            sums[clip] += part


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
    with listening(transformers, recorder):
        yield recorder
