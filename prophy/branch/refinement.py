"""Refinement Expert Block: which physics acts at each token (section 3.2, eq. 2).

Shapes: B batch, N tokens, D width, E experts, K top-k, M = B·N·K assignments.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from prophy.branch.precision import compute_dtype, without_autocast
from prophy.branch.scales import steered_softmax

FORMS = ("mixture", "residual")

_ROUTED_AT_ONCE = 1024  #: tokens


@dataclass(frozen=True)
class TokenRouting:
    """What the refinement router decided: all probabilities, and the chosen experts with their weights."""

    probs_BNE: torch.Tensor
    topk_ids_BNK: torch.Tensor
    topk_weights_BNK: torch.Tensor


class RefinementExpertBlock(nn.Module):
    """``x' = Σ_{i in top-k} ρ̂_r[i] · e_i(x)`` (eq. 2): a token's state becomes what its own linear experts make of it.

    The weights of the chosen experts are renormalised to a sum of one, and every expert starts as the identity (both
    ours), so that a fresh block changes nothing. An expert is stored as what it adds to the identity,
    ``e(x) = x + W x + b`` with ``W`` and ``b`` zero at first: weight decay then pulls towards the identity, and
    bfloat16 keeps small changes.

    Args:
        width: D.
        num_experts: E.
        top_k: K.
        form: ``mixture`` as above, or ``residual``, ``x' = x + Σ ρ_r[i] · e_i(norm(x))``, of branches made before
            there was a choice (ours).

    Raises:
        ValueError: unknown form.
    """

    def __init__(self, width: int, num_experts: int, top_k: int, form: str = "mixture") -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"refinement_form={form!r} is unknown: use {' or '.join(FORMS)}")
        self.top_k, self.form = top_k, form
        self.norm = nn.LayerNorm(width)
        self.router = nn.Linear(width, num_experts)
        start = 0.2 * width**-0.5 if form == "residual" else 0.0
        self.weight_EDD = nn.Parameter(torch.randn(num_experts, width, width) * start)
        self.bias_ED = nn.Parameter(torch.zeros(num_experts, width))

    def route(
        self, x_BND: torch.Tensor, scale_E: torch.Tensor | None = None, forced_N: torch.Tensor | None = None
    ) -> TokenRouting:
        """Choose experts, in float32: bf16 ties make top-k unstable.

        Args:
            x_BND: normalised hidden states.
            scale_E: steering, see :func:`prophy.branch.scales.steered_softmax`.
            forced_N: int64; the expert that alone acts on a token, whatever its scale, or -1 to leave the token free.

        Raises:
            ValueError: every expert is muted, or ``forced_N`` fits neither the tokens nor the experts.
        """
        with without_autocast(x_BND):
            weight, bias = self.router.weight.float(), self.router.bias.float()
            parts = x_BND.split(_ROUTED_AT_ONCE, dim=-2)  # a part's float32 copy stays in the processor's cache
            logits = torch.cat([functional.linear(part.float(), weight, bias) for part in parts], dim=-2)
        probs = steered_softmax(logits, scale_E)
        if forced_N is not None and bool((forced_N >= 0).any()):
            probs = _forced(probs, forced_N)
        weights, ids = probs.topk(self.top_k, dim=-1)
        return TokenRouting(probs, ids, weights)

    def forward(
        self, x_BND: torch.Tensor, scale_E: torch.Tensor | None = None, forced_N: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, TokenRouting]:
        """Refine the tokens, steered as in :meth:`route`; returns ``x'`` like ``x_BND`` and the routing."""
        # in the dtype of the states, inside float32
        weight, bias = self.norm.weight.to(x_BND.dtype), self.norm.bias.to(x_BND.dtype)
        normal = functional.layer_norm(x_BND, self.norm.normalized_shape, weight, bias, self.norm.eps)
        routing = self.route(normal, scale_E, forced_N)
        read = x_BND if self.form == "mixture" else normal
        tokens_RD = read.to(compute_dtype(x_BND)).flatten(0, 1)
        del normal, read
        shares_BNK = routing.topk_weights_BNK
        if self.form == "mixture":
            shares_BNK = shares_BNK / shares_BNK.sum(-1, keepdim=True)
        mixed = self._dispatch(tokens_RD, routing.topk_ids_BNK.flatten(0, 1), shares_BNK.flatten(0, 1))
        return mixed.view_as(x_BND).to(x_BND.dtype).add_(x_BND), routing

    def _dispatch(self, tokens_RD: torch.Tensor, ids_RK: torch.Tensor, shares_RK: torch.Tensor) -> torch.Tensor:
        """Sort assignments by expert, multiply each group with its matrix once (a grouped matrix product), and sum each
        token's answers in one pass. No step but the products touches all M answers twice.
        """
        dtype, experts = tokens_RD.dtype, len(self.bias_ED)
        shares_RK = shares_RK.to(dtype)
        order_M = ids_RK.flatten().argsort(stable=True)
        ends_E = torch.bincount(ids_RK.flatten(), minlength=experts).cumsum(0).to(torch.int32)
        answers_MD = functional.grouped_mm(
            # not brackets: the backward of this adds up in a fixed order, so that a resumed training is exact
            tokens_RD.index_select(0, order_M // self.top_k),
            self.weight_EDD.to(dtype),
            offs=ends_E,
        )
        places_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(len(order_M), device=order_M.device))
        mixed_RD = functional.embedding_bag(
            places_M.view_as(ids_RK), answers_MD, per_sample_weights=shares_RK, mode="sum"
        )
        shares_RE = shares_RK.new_zeros(len(ids_RK), experts).scatter(1, ids_RK, shares_RK)
        return mixed_RD.addmm_(shares_RE, self.bias_ED.to(dtype))


def _forced(probs_BNE: torch.Tensor, forced_N: torch.Tensor) -> torch.Tensor:
    """Probability 1 on the expert of each token that is not free."""
    _, tokens, experts = probs_BNE.shape
    if forced_N.shape != (tokens,) or int(forced_N.max()) >= experts:
        raise ValueError(
            f"forced experts of shape {tuple(forced_N.shape)} up to {int(forced_N.max())}: "
            f"give one below {experts}, or -1, for each of {tokens} tokens"
        )
    forced_N = forced_N.to(probs_BNE.device)
    certain_NE = functional.one_hot(forced_N.clamp(min=0), experts).to(probs_BNE)
    return torch.where((forced_N >= 0)[:, None], certain_NE, probs_BNE)
