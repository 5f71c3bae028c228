"""The three losses of the branch: pure functions, tensors in, scalar out.

Shapes: B batch, S semantic experts, N tokens, E refinement experts, K top-k, P phenomena.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class LossWeights:
    """λ of eq. 6; the same on both backbones (paper)."""

    coarse: float = 0.1
    fine_align: float = 0.02
    fine_balance: float = 0.01


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


def fine_align_loss(
    predicted_BNP: torch.Tensor,
    targets_BNP: torch.Tensor,
    labels_BP: torch.Tensor,
    background: float = 0.0,
) -> torch.Tensor:
    """Alignment of the token-level map with its targets (eq. 5).

    The squared difference where a phenomenon is labelled and its target is positive, averaged over those entries.

    Args:
        predicted_BNP: P', the map head's output.
        targets_BNP: Q_r; zero or negative: not here.
        labels_BP: multi-hot labels of the clips.
        background: weight of a second term that pulls P' to 0 everywhere else (ours): eq. 5 alone is content with a map
            that is high everywhere.
    """
    predicted, targets = predicted_BNP.float(), targets_BNP.float()
    here = (targets > 0) & (labels_BP[:, None] > 0)
    error = (predicted - targets).square()
    loss = (error * here).sum() / here.sum().clamp(min=1)
    if background:
        loss = loss + background * (predicted.square() * ~here).sum() / (~here).sum().clamp(min=1)
    return loss


def fine_balance_loss(probs_BNE: torch.Tensor, topk_ids_BNK: torch.Tensor) -> torch.Tensor:
    """Load balancing of the refinement router: the standard auxiliary loss of top-k mixtures (Fedus et al., 2022).

    ``E · Σ_e f_e · p_e``: the share of assignments times the mean probability of each expert; 1 when balanced,
    0 for an empty batch.
    """
    experts = probs_BNE.shape[-1]
    if topk_ids_BNK.numel() == 0:
        return probs_BNE.float().sum() * 0.0
    share = torch.bincount(topk_ids_BNK.flatten(), minlength=experts).float() / topk_ids_BNK.numel()
    return experts * (share * probs_BNE.float().mean((0, 1))).sum()


def total_loss(
    diffusion: torch.Tensor,
    coarse: torch.Tensor,
    fine_align: torch.Tensor,
    fine_balance: torch.Tensor,
    weights: LossWeights,
) -> torch.Tensor:
    """``L = L_diffusion + 0.1 L_coarse + 0.02 L_align + 0.01 L_balance`` with the paper's weights (eq. 6)."""
    return diffusion + weights.coarse * coarse + weights.fine_align * fine_align + weights.fine_balance * fine_balance
