"""Attention from answer tokens to video tokens, in bounded memory.

While an answer is generated, each forward pass ends in the one row that predicts the next token. An attention function
registered with transformers runs its stock SDPA and then computes that row's probabilities once more, one layer at a
time; their mean over heads, at the video tokens, is all that is kept.

Shapes: B questions, H query heads, G query heads to a key head, L tokens so far, D width of a head, V video tokens,
K captured layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "prophy_answer_rows"
#: Implementations that compute what SDPA computes, so that SDPA can stand in for them while maps are taken.
CAPTURABLE = ("sdpa", "eager")


class AnswerAttention:
    """Sums the maps of one batch of questions.

    A row's map is held back until its token is known, and counts only if that token belongs to an answer.

    Args:
        layers: decoder layers to capture.
        columns_V: positions of the video tokens.
        questions: B.
        heads: query heads to average; None: all.
        keep_layers: sum each layer alone (K·V numbers a question) instead of their mean (V).
    """

    def __init__(
        self,
        layers: Sequence[int],
        columns_V: torch.Tensor,
        questions: int,
        *,
        heads: Sequence[int] | None = None,
        keep_layers: bool = False,
    ) -> None:
        self._slots = {layer: i if keep_layers else 0 for i, layer in enumerate(layers)}
        self._share = 1.0 if keep_layers else 1 / len(layers)
        self._heads = None if heads is None else list(heads)
        self._columns_V = columns_V
        rows = len(layers) if keep_layers else 1
        self._pending_BKV = torch.zeros(questions, rows, len(columns_V), device=columns_V.device)
        self._sum_BKV = torch.zeros_like(self._pending_BKV)
        self._counted_B = torch.zeros(questions, device=columns_V.device)

    def take(self, layer: int, query_BHLD: torch.Tensor, key_BHLD: torch.Tensor, scaling: float) -> None:
        """The last row of one layer's attention. No mask: the last token sees every token before it."""
        if layer not in self._slots:
            return
        batch, key_heads, _, width = key_BHLD.shape
        last_BHGD = query_BHLD[:, :, -1].reshape(batch, key_heads, -1, width)
        scores_BHGL = (last_BHGD @ key_BHLD.transpose(-1, -2)) * scaling
        probs_BHL = scores_BHGL.softmax(-1, dtype=torch.float32).flatten(1, 2)
        if self._heads is not None:
            probs_BHL = probs_BHL[:, self._heads]
        columns_V, pending = self._columns_V, self._pending_BKV
        map_BV = probs_BHL.mean(1)[:, columns_V.to(probs_BHL.device)]
        pending[:, self._slots[layer]].add_(map_BV.to(pending.device), alpha=self._share)

    def commit(self, counts_B: Sequence[bool]) -> None:
        """Keep the rows taken since the last call whose token belongs to an answer; forget the others."""
        counts = torch.tensor(counts_B, dtype=torch.float32, device=self._sum_BKV.device)
        self._sum_BKV.addcmul_(self._pending_BKV, counts[:, None, None])
        self._counted_B += counts
        self._pending_BKV.zero_()

    def means_BKV(self) -> torch.Tensor:
        """Maps averaged over the tokens of each answer; 0 without tokens. K = 1 unless layers are kept; on the CPU."""
        return (self._sum_BKV / self._counted_B.clamp(min=1)[:, None, None]).cpu()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Receive the rows of every forward pass inside the block."""
        token = _RECORDER.set(self)
        try:
            yield
        finally:
            _RECORDER.reset(token)


_RECORDER: ContextVar[AnswerAttention | None] = ContextVar("recorder", default=None)


def _attend(
    module: torch.nn.Module,
    query_BHLD: torch.Tensor,
    key_BHLD: torch.Tensor,
    value_BHLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    recorder = _RECORDER.get()
    if recorder is not None:
        recorder.take(module.layer_idx, query_BHLD, key_BHLD, scaling)
    return sdpa_attention_forward(module, query_BHLD, key_BHLD, value_BHLD, attention_mask, scaling=scaling, **kwargs)


@contextmanager
def capturable(text_config: PreTrainedConfig) -> Iterator[None]:
    """Let a language model's attention run through here, and put its own implementation back afterwards.

    Raises:
        ValueError: an implementation that SDPA cannot stand in for.
    """
    before = text_config._attn_implementation
    if before not in CAPTURABLE:
        raise ValueError(f"attention {before!r} cannot be captured: load the model with attn_implementation='sdpa'")
    AttentionInterface.register(IMPLEMENTATION, _attend)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
    text_config._attn_implementation = IMPLEMENTATION
    try:
        yield
    finally:
        text_config._attn_implementation = before
