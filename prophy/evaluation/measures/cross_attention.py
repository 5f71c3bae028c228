"""What the backbone's own attention says of a phenomenon's place, without any training.

How much each token attends to its words; and, stronger, how alike each token's features are to those of the token that
attends to them most. Recorded on the stock transformer as :mod:`prophy.backbones.attention` does: the outputs are the
stock ones, the maps are computed beside them and reduced at once to one number a token and phenomenon.

Shapes: B batch, N tokens, T latent frames, M tokens of one latent frame, L text length, D width, P phenomena.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from prophy.backbones.attention import Rotate, attention_to_words, listening
from prophy.branch.family import FAMILIES
from prophy.phenomena import IDS
from prophy.worlds.captions import COLOUR_WORDS, TEMPLATES

_COMMON = 4  # a word of this many phenomena says nothing about any of them


@cache
def words_of(phenomenon: str) -> frozenset[str]:
    """The words by which the worlds' captions tell a phenomenon from the others."""
    by_phenomenon: dict[str, set[str]] = {}
    for (name, _), kinds in TEMPLATES.items():
        words = {word for templates in kinds for text in templates for word in re.findall(r"[a-z]+", text.lower())}
        by_phenomenon.setdefault(name, set()).update(words)
    count = Counter(word for words in by_phenomenon.values() for word in words)
    colours = {word for words in COLOUR_WORDS.values() for word in words}
    return frozenset(w for w in by_phenomenon.get(phenomenon, ()) if count[w] < _COMMON and w not in colours)


def word_weights(
    tokenizer: PreTrainedTokenizerBase, ids_BL: torch.Tensor, asked: Sequence[Sequence[str]]
) -> torch.Tensor:
    """Which text tokens are each asked phenomenon's own words, float32 ``(B, P, L)``; 0 where there is none.

    A word that two of a prompt's phenomena share belongs to neither.
    """
    weights = torch.zeros(len(ids_BL), len(IDS), ids_BL.shape[1])
    for row, names in enumerate(asked):
        tokens = [token.lower().lstrip("▁") for token in tokenizer.convert_ids_to_tokens(ids_BL[row].tolist())]
        for name in names:
            others = frozenset().union(*(words_of(other) for other in names if other != name))
            own = words_of(name) - others
            weights[row, IDS.index(name)] = torch.tensor([float(token in own) for token in tokens])
    return weights


class CrossAttentionRecorder:
    """What :func:`record_cross_attention` collects: one map ``(B, N, P)`` for every conditional pass, in order.

    Attributes:
        maps: attention to each phenomenon's words, mean over blocks and heads.
        alike: see :func:`alike_to_the_most_attending`, mean over blocks; empty unless latent frames were given.
    """

    hears_places = False

    def __init__(self, weights_BPL: torch.Tensor, frames: int | None = None) -> None:
        self.maps: list[torch.Tensor] = []
        self.alike: list[torch.Tensor] = []
        self._weights_BPL, self._frames, self._features_BND = weights_BPL, frames, torch.zeros(0)
        self._parts: list[torch.Tensor] = []  # of each block of the pass under way
        self._alike: list[torch.Tensor] = []

    def take_features(self, features_BND: torch.Tensor) -> None:
        """After a block's self-attention, which comes before its cross-attention."""
        self._features_BND = features_BND

    # --- as a prophy.backbones.attention.Listener ---------------------------------------------------------------------

    def begin(self) -> bool:
        self._parts, self._alike = [], []
        return True

    def add_cross(self, query_BNHD: torch.Tensor, key_BLHD: torch.Tensor) -> None:
        rows = zip(query_BNHD, key_BLHD, self._weights_BPL.transpose(1, 2), strict=True)
        part_BNP = torch.stack([attention_to_words(*row) for row in rows])
        self._parts.append(part_BNP)
        if self._frames is not None:
            alike = alike_to_the_most_attending(self._features_BND, part_BNP, self._frames)
            has_words = self._weights_BPL.to(alike).any(2)[:, None]  # without words there is no such token
            self._alike.append(alike * has_words)

    def add_self(self, query_BNHD: torch.Tensor, key_BNHD: torch.Tensor, rotate: Rotate) -> None:
        """Not heard."""

    def end(self) -> None:
        self.maps.append(torch.stack(self._parts).mean(0).cpu())
        if self._alike:
            self.alike.append(torch.stack(self._alike).mean(0).cpu())


def alike_to_the_most_attending(features_BND: torch.Tensor, attention_BNP: torch.Tensor, frames: int) -> torch.Tensor:
    """How alike each token is to the one of its latent frame that attends most to a phenomenon, float32 ``(B, N, P)``.

    Cosine similarity of what self-attention gives, the clip's mean taken off. The idea is that of IMAP (arXiv
    2603.02919): in each frame one token stands for the text, and its column of the features' Gram matrix is the map.
    Ours, and simpler: all heads of all blocks alike, none chosen for motion.

    Args:
        features_BND: of the tokens, frame by frame.
        attention_BNP: to the phenomenon's words.
        frames: latent frames.
    """
    features = features_BND.float() - features_BND.float().mean(1, keepdim=True)
    unit_BTMD = functional.normalize(features, dim=-1).unflatten(1, (frames, -1))
    most_BTP = attention_BNP.unflatten(1, (frames, -1)).argmax(2)
    index = most_BTP[..., None].expand(-1, -1, -1, unit_BTMD.shape[-1])
    chosen_BTPD = unit_BTMD.gather(2, index)
    return torch.einsum("btmd,btpd->btmp", unit_BTMD, chosen_BTPD).flatten(1, 2)


@contextmanager
def record_cross_attention(
    transformer: nn.Module, conditional_BLD: torch.Tensor, weights_BPL: torch.Tensor, frames: int | None = None
) -> Iterator[CrossAttentionRecorder]:
    """Record the attention of every conditional pass; see :class:`prophy.backbones.attention.Passes`.

    Args:
        transformer: a stock Wan transformer.
        conditional_BLD: text of the passes to record.
        weights_BPL: see :func:`word_weights`.
        frames: latent frames of the clips, to record :func:`alike_to_the_most_attending` too.

    Raises:
        ValueError: see :func:`prophy.backbones.attention.check_records`.
    """
    recorder = CrossAttentionRecorder(weights_BPL, frames)
    handles = []
    with listening([transformer], recorder, conditional_BLD) as passes:

        def take(layer: nn.Module, args: tuple, features_BND: torch.Tensor) -> None:
            if passes.listens:
                recorder.take_features(features_BND)

        if frames is not None:
            family: Any = FAMILIES[type(transformer).__name__]
            handles = [layer.register_forward_hook(take) for layer in family.self_attentions(transformer)]
        try:
            yield recorder
        finally:
            for handle in handles:
                handle.remove()
