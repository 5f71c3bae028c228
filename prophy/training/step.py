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
    routing_loss,
    total_loss,
)
from prophy.training.batches import Batch
from prophy.training.collectives import all_gather, all_reduce_sum
from prophy.training.counterfactual import counterfactual_target, muting_scale
from prophy.training.recipe import Recipe
from prophy.training.trainable import Prediction


@dataclass(frozen=True)
class StepLosses:
    """The terms of eq. 6 for a whole batch, scalars; ``total`` has gradients.

    ``routing`` (:func:`prophy.branch.losses.routing_loss`) and ``counterfactual``, the diffusion loss where an expert
    is muted, are None where the recipe does without them.
    """

    total: torch.Tensor
    diffusion: torch.Tensor
    coarse: torch.Tensor
    fine_align: torch.Tensor
    fine_balance: torch.Tensor
    routing: torch.Tensor | None = None
    counterfactual: torch.Tensor | None = None

    def row(self) -> dict[str, float]:
        """Plain numbers."""
        return {name: float(value.detach()) for name, value in vars(self).items() if value is not None}


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

    Clips whose caption was dropped train the diffusion loss alone: no text, no physics to read from it. So do clips
    with a muted expert (:mod:`prophy.training.counterfactual`): their routing is not the router's own.

    Args:
        model: a :class:`prophy.training.trainable.TrainableModule`, attached, or what wraps it.
        batch: this process's share, on the model's device.
        recipe: weights and forms of the losses.
    """
    target_BCTHW, changed_BTHW, scale = batch.target_BCTHW, None, None
    if recipe.counterfactual.share and recipe.branch is not None:
        target_BCTHW, changed_BTHW = _without_the_muted(model, batch, recipe)
        scale = muting_scale(batch.muted_B, recipe.branch.refinement_experts)
    predicted = model(batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD, scale)
    error_BTHW = (predicted.predicted_BCTHW - target_BCTHW).square().mean(1)
    diffusion = all_reduce_sum((batch.weight_BTHW * error_BTHW).sum()) / all_reduce_sum(batch.weight_BTHW.sum())
    routed = predicted.routed
    if routed is None:
        none = diffusion.detach() * 0
        return StepLosses(diffusion, diffusion, none, none, none), predicted
    kept = batch.described_B & (batch.muted_B < 0)
    kept_of_all = all_gather(kept.to(torch.uint8)).bool()
    form = coarse_loss if recipe.coarse == "relative" else coarse_bce_loss
    coarse = form(all_gather(routed.labels_BP)[kept_of_all], all_gather(batch.labels_BP)[kept_of_all])
    aligned = kept & batch.annotated_B
    align = fine_align_loss(
        routed.phenomenon_map_BNP[aligned],
        batch.targets_BNP[aligned],
        batch.labels_BP[aligned],
        recipe.align_background,
        recipe.align_others,
        all_reduce_sum,
    )
    balance = fine_balance_loss(routed.probs_BNE[kept], routed.topk_ids_BNK[kept], all_reduce_sum)
    routing = counterfactual = None
    if recipe.losses.routing:
        routing = routing_loss(routed.probs_BNE[aligned], batch.targets_BNP[aligned], all_reduce_sum)
    if changed_BTHW is not None:
        places = all_reduce_sum(changed_BTHW.sum()).clamp(min=1)
        counterfactual = all_reduce_sum((error_BTHW * changed_BTHW).sum()) / places
    loss = total_loss(diffusion, coarse, align, balance, recipe.losses, routing)
    return StepLosses(loss, diffusion, coarse, align, balance, routing, counterfactual), predicted


@torch.no_grad()
def _without_the_muted(
    model: Callable[..., Prediction], batch: Batch, recipe: Recipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets of a batch with muted experts, and where they were changed.

    Every process runs the backbone, over as many clips in every step: sharded weights are gathered together, and
    compiled blocks know one size. Where fewer are muted the first clip fills up.
    """
    muted = (batch.muted_B >= 0).nonzero().flatten()
    count = max(1, math.ceil(len(batch.muted_B) * recipe.counterfactual.share))
    rows = torch.cat([muted, muted.new_zeros(count - len(muted))])
    inputs = (batch.noisy_BCTHW[rows], batch.timestep_B[rows], batch.text_BLD[rows])
    without_MCTHW = model(*inputs, use_branch=False).predicted_BCTHW[: len(muted)]
    threshold = recipe.counterfactual.threshold
    return counterfactual_target(batch.target_BCTHW, without_MCTHW, batch.muted_B, batch.targets_BNP, threshold)


@torch.no_grad()
def expert_usage(predicted: Prediction) -> ExpertUsage | None:
    """What the experts did in a batch, over all processes; None without a branch."""
    routed = predicted.routed
    if routed is None:
        return None
    probs = routed.probs_BNE.float()
    shares_E = assignment_shares(routed.topk_ids_BNK, probs.shape[-1], all_reduce_sum)
    tokens = probs.flatten(0, 1)
    semantic_S = mean_probabilities(routed.semantic_weights_BS, all_reduce_sum)
    return ExpertUsage(
        refinement_E=_rounded(shares_E),
        refinement_entropy=float(_entropy(shares_E)),
        token_entropy=float(all_reduce_sum(_entropy(tokens).sum()) / all_reduce_sum(tokens.new_tensor(len(tokens)))),
        semantic_S=_rounded(semantic_S),
        semantic_entropy=float(_entropy(semantic_S)),
    )


def _entropy(probs: torch.Tensor) -> torch.Tensor:
    return -torch.special.xlogy(probs, probs).sum(-1) / math.log(max(2, probs.shape[-1]))


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]
