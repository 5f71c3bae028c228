"""Attention for training on a CPU: the function of the stock ``WanAttnProcessor``, with a much faster backward pass.

The fused kernel's backward pass takes twice as long as plain bf16 matrix products at the few hundred tokens of the
embedded model, and the stock rotary embedding writes strided halves. Installed for training only, through diffusers'
own ``set_attn_processor``; what is saved knows nothing of it.
"""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention


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
