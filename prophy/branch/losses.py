"""The losses of the branch: pure functions, tensors in, scalar out.

Where a batch is spread over processes, ``total`` adds a sum up over all of them, so that a loss is that of the whole
batch. Eqs. 3-4 compare the rows of a batch with each other: there the caller passes the rows of all.

Shapes: B batch, S semantic experts, N tokens, E refinement experts, K top-k, P phenomena.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from prophy.schema import LossWeight, check_fields

_SOME = 0.02  # of a token: less of a phenomenon is a mask's edge

Total = Callable[[torch.Tensor], torch.Tensor]


def _alone(sum_here: torch.Tensor) -> torch.Tensor:
    return sum_here


@dataclass(frozen=True)
class LossWeights:
    """λ of eq. 6; the same on both backbones (paper). ``routing`` weighs :func:`routing_loss`, which is ours."""

    coarse: LossWeight = 0.1
    fine_align: LossWeight = 0.02
    fine_balance: LossWeight = 0.01
    routing: LossWeight = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "losses")


def coarse_loss(predicted_BP: torch.Tensor, labels_BP: torch.Tensor) -> torch.Tensor:
    """Relative alignment of the semantic router (eqs. 3-4).

    Pairwise cosine similarities inside the batch, of the router's weights mapped to label space and of the multi-hot
    labels, are matched: the sum over i < j of the squared difference. We divide by the number of pairs, so that the
    weight does not depend on the batch size (ours).

    Args:
        predicted_BP: the coarse head's output.
        labels_BP: multi-hot; rows without a label match nothing.

    Returns:
        A scalar; 0 for a batch of one.
    """
    if len(predicted_BP) < 2:
        return predicted_BP.sum() * 0.0
    predicted = functional.normalize(predicted_BP.float(), dim=-1)
    labels = functional.normalize(labels_BP.float(), dim=-1)
    i, j = torch.triu_indices(len(predicted), len(predicted), offset=1, device=predicted.device)
    return ((predicted @ predicted.T)[i, j] - (labels @ labels.T)[i, j]).square().mean()


def coarse_bce_loss(predicted_BP: torch.Tensor, labels_BP: torch.Tensor) -> torch.Tensor:
    """The alternative to :func:`coarse_loss` that the paper ablates: binary cross-entropy of each clip by itself.

    Args:
        predicted_BP: the coarse head's output, read as logits.
        labels_BP: multi-hot.

    Returns:
        A scalar; 0 for an empty batch.
    """
    if len(predicted_BP) < 1:
        return predicted_BP.sum() * 0.0
    return functional.binary_cross_entropy_with_logits(predicted_BP.float(), labels_BP.float())


def fine_align_loss(
    predicted_BNP: torch.Tensor,
    targets_BNP: torch.Tensor,
    labels_BP: torch.Tensor,
    background: float = 0.0,
    others: float = 0.0,
    total: Total = _alone,
) -> torch.Tensor:
    """Alignment of the token-level map with its targets (eq. 5).

    The squared difference where a phenomenon is labelled and its target is positive, averaged over those entries.

    Args:
        predicted_BNP: P', the map head's output.
        targets_BNP: Q_r; zero or negative: not here.
        labels_BP: multi-hot labels of the clips.
        background: weight of a second term that pulls P' to 0 everywhere else (ours): eq. 5 alone is content with a map
            that is high everywhere.
        others: weight of a third one that does so where another phenomenon acts (ours): the second is content with a
            map that rises a little wherever anything happens, for most tokens show nothing at all.
        total: see the head of this file.
    """
    predicted, targets = predicted_BNP.float(), targets_BNP.float()
    here = (targets > 0) & (labels_BP[:, None] > 0)
    acts = here.any(-1, keepdim=True)  # a phenomenon, whichever

    def mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return total((values * where).sum()) / total(where.sum()).clamp(min=1)

    loss = mean((predicted - targets).square(), here)
    if background:
        loss = loss + background * mean(predicted.square(), ~here)
    if others:
        loss = loss + others * mean(predicted.square(), ~here & acts)
    return loss


def fine_balance_loss(probs_BNE: torch.Tensor, topk_ids_BNK: torch.Tensor, total: Total = _alone) -> torch.Tensor:
    """Load balancing of the refinement router: the standard auxiliary loss of top-k mixtures (Fedus et al., 2022).

    ``E · Σ_e f_e · p_e``: the share of assignments times the mean probability of each expert; 1 when balanced,
    0 for an empty batch. ``total``: see the head of this file.
    """
    experts = probs_BNE.shape[-1]
    return experts * (assignment_shares(topk_ids_BNK, experts, total) * mean_probabilities(probs_BNE, total)).sum()


def routing_loss(probs_BNE: torch.Tensor, targets_BNP: torch.Tensor, total: Total = _alone) -> torch.Tensor:
    """Cross-entropy of the refinement router with the token targets: expert p for phenomenon p (ours).

    With it an expert *is* a phenomenon, which counterfactual routing mutes by name. The expert behind the last
    phenomenon stands for none; experts behind that are never asked for. Targets that overlap share a token by their
    sizes. A token where a phenomenon acts weighs five times one where none does: most of a frame is wall.

    Args:
        probs_BNE: of the router, with more experts than phenomena.
        targets_BNP: Q_r; zero or negative: not here.
        total: see the head of this file.

    Returns:
        A scalar; 0 for an empty batch.
    """
    here = targets_BNP.float().clamp(min=0)
    nothing = (1 - here.sum(-1, keepdim=True)).clamp(min=0)
    wanted = torch.cat([here, nothing], dim=-1)
    wanted = wanted / wanted.sum(-1, keepdim=True)
    entropy_BN = -(wanted * probs_BNE[..., : wanted.shape[-1]].float().clamp(min=1e-6).log()).sum(-1)
    weight_BN = 1 + 4 * (here.sum(-1) > _SOME).float()
    return total((weight_BN * entropy_BN).sum()) / total(weight_BN.sum()).clamp(min=1)


def assignment_shares(topk_ids_BNK: torch.Tensor, experts: int, total: Total = _alone) -> torch.Tensor:
    """f: the share of all assignments that went to each expert, float32 ``(E,)``."""
    counts_E = torch.bincount(topk_ids_BNK.flatten(), minlength=experts)
    return total(counts_E).float() / total(counts_E.sum()).clamp(min=1)


def mean_probabilities(probs_BNE: torch.Tensor, total: Total = _alone) -> torch.Tensor:
    """p: the mean probability of each expert, float32 ``(E,)``; a router without tokens passes ``(B, E)``."""
    rows = probs_BNE.float().flatten(0, -2)
    return total(rows.sum(0)) / total(rows.new_tensor(len(rows))).clamp(min=1)


def total_loss(
    diffusion: torch.Tensor,
    coarse: torch.Tensor,
    fine_align: torch.Tensor,
    fine_balance: torch.Tensor,
    weights: LossWeights,
    routing: torch.Tensor | None = None,
) -> torch.Tensor:
    """``L = L_diffusion + 0.1 L_coarse + 0.02 L_align + 0.01 L_balance`` with the paper's weights (eq. 6); and ours."""
    loss = diffusion + weights.coarse * coarse + weights.fine_align * fine_align + weights.fine_balance * fine_balance
    return loss if routing is None else loss + weights.routing * routing
