"""Attention of a small vision-language model as plain matrix products: the function of the stock one, with a much
faster backward pass on a CPU. Installed while it trains, through the library's own door; what is saved knows nothing.

Of the video transformer: :class:`prophy.backbones.wan.PlainAttention`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

#: Its name holds "flash", so that a vision tower hands over all its windows at once instead of one by one.
_IMPLEMENTATION = "prophy_flash_training"


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
