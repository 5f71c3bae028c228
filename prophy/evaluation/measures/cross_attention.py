"""What the backbone's own attention says of a phenomenon's place, without any training.

How much each token attends to its words; and, stronger, how alike each token's features are to those of the token that
attends to them most. Captured on the stock transformer, through diffusers' own attention processors and a hook: the
outputs are the stock ones, the maps are computed beside them and reduced at once to one number a token and phenomenon.

Shapes: B batch, N tokens, T latent frames, M tokens of one latent frame, L text length, D width, P phenomena.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn
from torch.nn import functional
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
    """What :func:`record_cross_attention` collects: one map ``(B, N, P)`` for every conditional forward, in order.

    Attributes:
        maps: attention to each phenomenon's words, mean over blocks and heads.
        alike: see :func:`alike_to_the_most_attending`, mean over blocks; empty unless latent frames were given.
    """

    def __init__(
        self, conditional_BLD: torch.Tensor, weights_BPL: torch.Tensor, blocks: int, frames: int | None = None
    ) -> None:
        self.maps: list[torch.Tensor] = []
        self.alike: list[torch.Tensor] = []
        self._conditional_BLD, self._weights_BPL, self._blocks = conditional_BLD, weights_BPL, blocks
        self._frames, self._features_BND = frames, torch.zeros(0)
        self._sum: torch.Tensor | None = None
        self._alike: torch.Tensor | None = None
        self._count = 0
        self._listening = False

    def begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before each forward of the transformer: is it the conditional one?"""
        text = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[2]
        theirs = self._conditional_BLD.to(text)
        self._listening = text.shape == theirs.shape and torch.equal(text, theirs)
        self._sum, self._alike, self._count = None, None, 0

    def take_features(self, attn: nn.Module, args: tuple, features_BND: torch.Tensor) -> None:
        """After a block's self-attention, which comes before its cross-attention."""
        if self._listening:
            self._features_BND = features_BND

    def add(self, attn: nn.Module, hidden_BND: torch.Tensor, text_BLD: torch.Tensor) -> None:
        """Take one block's attention to the words, averaged over heads."""
        if not self._listening:
            return
        query = attn.norm_q(attn.to_q(hidden_BND)).unflatten(2, (attn.heads, -1)).transpose(1, 2).float()
        key = attn.norm_k(attn.to_k(text_BLD)).unflatten(2, (attn.heads, -1)).transpose(1, 2).float()
        weights_BNL = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1).mean(1)
        part = torch.einsum("bnl,bpl->bnp", weights_BNL, self._weights_BPL.to(weights_BNL))
        self._sum = part if self._sum is None else self._sum + part
        if self._frames is not None:
            alike = alike_to_the_most_attending(self._features_BND, part, self._frames)
            alike = alike * self._weights_BPL.to(alike).any(2)[:, None]  # without words there is no such token
            self._alike = alike if self._alike is None else self._alike + alike
        self._count += 1
        if self._count == self._blocks:
            self.maps.append((self._sum / self._blocks).cpu())
            if self._alike is not None:
                self.alike.append((self._alike / self._blocks).cpu())


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
    transformer: nn.Module, conditional_BLD: torch.Tensor, weights_BPL: torch.Tensor, frames: int | None = None
) -> Iterator[CrossAttentionRecorder]:
    """Record the attention of every forward whose text is ``conditional_BLD``; the stock processors come back after.

    Args:
        transformer: a stock Wan transformer.
        conditional_BLD: text of the forwards to record.
        weights_BPL: see :func:`word_weights`.
        frames: latent frames of the clips, to record :func:`alike_to_the_most_attending` too.

    Raises:
        ValueError: a transformer without cross-attention of its own, such as CogVideoX's.
    """
    family = FAMILIES.get(type(transformer).__name__)
    if family is None or not hasattr(family, "cross_attentions") or not hasattr(family, "self_attentions"):
        raise ValueError(f"{type(transformer).__name__} has no cross-attention to record: use a Wan transformer")
    layers = family.cross_attentions(transformer)
    stock = [layer.processor for layer in layers]
    recorder = CrossAttentionRecorder(conditional_BLD, weights_BPL, len(layers), frames)
    handles = [transformer.register_forward_pre_hook(recorder.begin, with_kwargs=True)]
    if frames is not None:
        handles += [own.register_forward_hook(recorder.take_features) for own in family.self_attentions(transformer)]
    try:
        for layer, processor in zip(layers, stock, strict=True):
            layer.set_processor(_Recording(processor, recorder))
        yield recorder
    finally:
        for handle in handles:
            handle.remove()
        for layer, processor in zip(layers, stock, strict=True):
            layer.set_processor(processor)
