"""One training step: eq. 6 on one batch, and what the experts did.

Shapes: B batch, T latent frames, H height, W width, N tokens, S semantic experts, E refinement experts, P phenomena.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from prophy.branch.losses import (
    assignment_shares,
    coarse_bce_loss,
    coarse_loss,
    fine_align_loss,
    fine_balance_loss,
    mean_probabilities,
    total_loss,
)
from prophy.training.batches import Batch
from prophy.training.collectives import all_rows, total
from prophy.training.recipes import Recipe
from prophy.training.student import Prediction


@dataclass(frozen=True)
class StepLosses:
    """The terms of eq. 6 for a whole batch, scalars; ``total`` has gradients."""

    total: torch.Tensor
    diffusion: torch.Tensor
    coarse: torch.Tensor
    fine_align: torch.Tensor
    fine_balance: torch.Tensor

    def row(self) -> dict[str, float]:
        """Plain numbers."""
        return {name: float(value.detach()) for name, value in vars(self).items()}


@dataclass(frozen=True)
class ExpertUsage:
    """How the routers spread a batch over their experts. A collapse shows here first.

    Attributes:
        refinement_E: share of all assignments that went to each refinement expert.
        refinement_entropy: of that share, over the largest possible: 1 spread evenly, 0 one expert.
        token_entropy: mean over tokens of the entropy of ρ_r, over the largest possible: 0 every token is certain.
        semantic_S: mean weight of each semantic expert.
        semantic_entropy: of that mean, over the largest possible.
    """

    refinement_E: list[float]
    refinement_entropy: float
    token_entropy: float
    semantic_S: list[float]
    semantic_entropy: float


def train_step(model: Callable[..., Prediction], batch: Batch, recipe: Recipe) -> tuple[StepLosses, Prediction]:
    """Predict, and weigh the losses. Sums run over all processes, so each returns the losses of the whole batch.

    Clips whose caption was dropped train the diffusion loss alone: no text, no physics to read from it.

    Args:
        model: a :class:`prophy.training.student.Student`, attached, or what wraps it.
        batch: this process's share, on the model's device.
        recipe: weights and forms of the losses.
    """
    predicted = model(batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD)
    error_BTHW = (predicted.predicted_BCTHW - batch.target_BCTHW).square().mean(1)
    diffusion = total((batch.weight_BTHW * error_BTHW).sum()) / total(batch.weight_BTHW.sum())
    if predicted.labels_BP is None:
        none = diffusion.detach() * 0
        return StepLosses(diffusion, diffusion, none, none, none), predicted
    kept = batch.described_B
    kept_of_all = all_rows(kept.to(torch.uint8)).bool()
    form = coarse_loss if recipe.coarse == "relative" else coarse_bce_loss
    coarse = form(all_rows(predicted.labels_BP)[kept_of_all], all_rows(batch.labels_BP)[kept_of_all])
    aligned = kept & batch.annotated_B
    align = fine_align_loss(
        predicted.phenomenon_map_BNP[aligned],
        batch.targets_BNP[aligned],
        batch.labels_BP[aligned],
        recipe.align_background,
        total,
    )
    balance = fine_balance_loss(predicted.probs_BNE[kept], predicted.topk_ids_BNK[kept], total)
    loss = total_loss(diffusion, coarse, align, balance, recipe.losses)
    return StepLosses(loss, diffusion, coarse, align, balance), predicted


@torch.no_grad()
def expert_usage(predicted: Prediction) -> ExpertUsage | None:
    """What the experts did in a batch, over all processes; None without a branch."""
    if predicted.probs_BNE is None:
        return None
    probs = predicted.probs_BNE.float()
    shares_E = assignment_shares(predicted.topk_ids_BNK, probs.shape[-1], total)
    tokens = probs.flatten(0, 1)
    semantic_S = mean_probabilities(predicted.semantic_weights_BS, total)
    return ExpertUsage(
        refinement_E=_rounded(shares_E),
        refinement_entropy=float(_entropy(shares_E)),
        token_entropy=float(total(_entropy(tokens).sum()) / total(tokens.new_tensor(len(tokens)))),
        semantic_S=_rounded(semantic_S),
        semantic_entropy=float(_entropy(semantic_S)),
    )


def _entropy(probs: torch.Tensor) -> torch.Tensor:
    return -torch.special.xlogy(probs, probs).sum(-1) / math.log(max(2, probs.shape[-1]))


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]
