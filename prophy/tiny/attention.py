"""Attention for training on a CPU: the function of the stock one, with a much faster backward pass.

The fused kernel's backward pass takes twice as long as plain bf16 matrix products at the few hundred tokens of the
embedded model, and the stock rotary embedding writes strided halves. Installed for training only, through the
libraries' own doors; what is saved knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.attention_processor import Attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

#: Its name holds "flash", so that a vision tower hands over all its windows at once instead of one by one.
_IMPLEMENTATION = "prophy_flash_training"


class TrainingAttnProcessor:
    """Drop-in for ``WanAttnProcessor`` without image conditioning or masks."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(context)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(context).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        if rotary_emb is not None:
            query, key = _rotate(query, *rotary_emb), _rotate(key, *rotary_emb)
        query, key = query.transpose(1, 2) * query.shape[-1] ** -0.5, key.transpose(1, 2)
        weights = (query.type_as(value) @ key.type_as(value).transpose(-1, -2)).softmax(-1)
        mixed = (weights.type_as(value) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](mixed))


def _rotate(x_BNHD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding; the swap of each pair is a product with a signed permutation."""
    size = x_BNHD.shape[-1]
    even = torch.arange(0, size, 2)
    swap = torch.zeros(size, size, dtype=x_BNHD.dtype)
    swap[even + 1, even], swap[even, even + 1] = -1.0, 1.0
    return x_BNHD * cos.to(x_BNHD.dtype) + (x_BNHD @ swap) * sin.to(x_BNHD.dtype)


@contextmanager
def fast_vlm_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let a vision-language model's attention run as plain matrix products inside the block, vision windows batched."""
    configs = [model.model.language_model.config, model.model.visual.config]
    before = [config._attn_implementation for config in configs]
    AttentionInterface.register(_IMPLEMENTATION, _plain_attention)
    AttentionMaskInterface.register(_IMPLEMENTATION, sdpa_mask)
    try:
        for config in configs:
            config._attn_implementation = _IMPLEMENTATION
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name


def _plain_attention(
    module: torch.nn.Module,
    query_BHLD: torch.Tensor,
    key_BHLD: torch.Tensor,
    value_BHLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it; ``cu_seq_lens_q``: ends of equally long windows that do not see each other."""
    parts = [query_BHLD, key_BHLD, value_BHLD]
    batch, heads, length, _ = query_BHLD.shape
    if cu_seq_lens_q is not None:
        windows = len(cu_seq_lens_q) - 1
        if (cu_seq_lens_q.diff() * windows != length).any():
            raise ValueError("windows of different sizes: train on frames that divide into whole windows")
        parts = [p.unflatten(2, (windows, -1)).transpose(1, 2).flatten(0, 1) for p in parts]
    query, key, value = parts
    groups = heads // key.shape[1]
    if groups > 1:
        key, value = (p.repeat_interleave(groups, 1) for p in (key, value))
    scores = (query * scaling).type_as(value) @ key.type_as(value).transpose(-1, -2)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    mixed = scores.softmax(-1).type_as(value) @ value
    return mixed.transpose(1, 2).reshape(batch, length, heads, -1), None
