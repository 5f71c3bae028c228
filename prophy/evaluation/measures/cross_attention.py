"""The backbone's own cross-attention as a map: how much each token attends to a phenomenon's words.

Captured through diffusers' own attention processors on the stock transformer: the output is the stock processor's, the
weights are computed beside it and reduced at once to one number a token and phenomenon.

Shapes: B batch, N tokens, L text length, D width, P phenomena.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

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
    """What :func:`record_cross_attention` collects: one map ``(B, N, P)`` for every conditional forward, in order."""

    def __init__(self, conditional_BLD: torch.Tensor, weights_BPL: torch.Tensor, blocks: int) -> None:
        self.maps: list[torch.Tensor] = []
        self._conditional_BLD, self._weights_BPL, self._blocks = conditional_BLD, weights_BPL, blocks
        self._sum: torch.Tensor | None = None
        self._count = 0
        self._listening = False

    def begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before each forward of the transformer: is it the conditional one?"""
        text = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[2]
        theirs = self._conditional_BLD.to(text)
        self._listening = text.shape == theirs.shape and torch.equal(text, theirs)
        self._sum, self._count = None, 0

    def add(self, attn: nn.Module, hidden_BND: torch.Tensor, text_BLD: torch.Tensor) -> None:
        """Take one block's attention to the words, averaged over heads."""
        if not self._listening:
            return
        query = attn.norm_q(attn.to_q(hidden_BND)).unflatten(2, (attn.heads, -1)).transpose(1, 2).float()
        key = attn.norm_k(attn.to_k(text_BLD)).unflatten(2, (attn.heads, -1)).transpose(1, 2).float()
        weights_BNL = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1).mean(1)
        part = torch.einsum("bnl,bpl->bnp", weights_BNL, self._weights_BPL.to(weights_BNL))
        self._sum = part if self._sum is None else self._sum + part
        self._count += 1
        if self._count == self._blocks:
            self.maps.append((self._sum / self._blocks).cpu())


class _Recording:
    """The stock processor, and the weights taken beside it."""

    def __init__(self, stock: Callable[..., torch.Tensor], recorder: CrossAttentionRecorder) -> None:
        self.stock, self.recorder = stock, recorder

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        self.recorder.add(attn, hidden_states, encoder_hidden_states)
        return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)


@contextmanager
def record_cross_attention(
    transformer: nn.Module, conditional_BLD: torch.Tensor, weights_BPL: torch.Tensor
) -> Iterator[CrossAttentionRecorder]:
    """Record the attention of every forward whose text is ``conditional_BLD``; the stock processors come back after.

    Raises:
        ValueError: a transformer without cross-attention of its own, such as CogVideoX's.
    """
    family = FAMILIES.get(type(transformer).__name__)
    if family is None or not hasattr(family, "cross_attentions"):
        raise ValueError(f"{type(transformer).__name__} has no cross-attention to record: use a Wan transformer")
    layers = family.cross_attentions(transformer)
    stock = [layer.processor for layer in layers]
    recorder = CrossAttentionRecorder(conditional_BLD, weights_BPL, len(layers))
    handle = transformer.register_forward_pre_hook(recorder.begin, with_kwargs=True)
    try:
        for layer, processor in zip(layers, stock, strict=True):
            layer.set_processor(_Recording(processor, recorder))
        yield recorder
    finally:
        handle.remove()
        for layer, processor in zip(layers, stock, strict=True):
            layer.set_processor(processor)
