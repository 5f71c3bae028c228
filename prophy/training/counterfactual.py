"""Counterfactual routing: a muted expert means, by construction, that its law is not applied. Ours, not the paper's.

In some of the clips one phenomenon that is there is muted in the refinement router, and on the tokens where it acts the
target becomes what the backbone predicts without the branch; everywhere else it stays the clip's own. With
:func:`prophy.branch.losses.routing_loss`, which makes expert p the one of phenomenon p, experts become causes: mute one
and that law stops there, while nothing else changes.

It works for any backbone and any token targets, and costs one more forward pass of the backbone over the muted clips.

Shapes: B batch, M muted clips, C latent channels, T latent frames, H height, W width, N tokens, E refinement experts,
P phenomena.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from prophy.data.examples import Example, on_latents
from prophy.schema import ShareBelowOne, check_fields


@dataclass(frozen=True)
class Counterfactual:
    """How often clips are muted.

    Attributes:
        share: of the clips; 0 leaves counterfactual routing out.
        threshold: of a token target, above which the phenomenon acts there.

    Raises:
        ValueError: a value out of its range.
    """

    share: ShareBelowOne = 0.0
    threshold: ShareBelowOne = 0.02

    def __post_init__(self) -> None:
        check_fields(self, "counterfactual")

    def falls_on(self, place: int) -> bool:
        """Whether the clip at this place of a batch may be muted: as many in every batch, spread evenly over it."""
        return int((place + 1) * self.share) > int(place * self.share)

    def choose(self, example: Example, rng: np.random.Generator) -> int:
        """A phenomenon of the clip to mute, by its index; -1 if there is none with a token of its own."""
        if example.targets_NP is None:
            return -1
        acts_P = (example.targets_NP > self.threshold).any(0) & (example.labels_P > 0)
        return int(rng.choice(np.flatnonzero(acts_P.numpy()))) if acts_P.any() else -1


def muting_scale(muted_B: torch.Tensor, experts: int) -> torch.Tensor:
    """The router's steering, ``(B, 1, E)``: 0 for the expert of each clip's muted phenomenon, 1 for all others.

    Args:
        muted_B: phenomenon of each clip, or -1 for none.
        experts: E.
    """
    scale = torch.ones(len(muted_B), 1, experts, device=muted_B.device)
    rows = (muted_B >= 0).nonzero().flatten()
    scale[rows, 0, muted_B[rows]] = 0.0
    return scale


def counterfactual_target(
    target_BCTHW: torch.Tensor,
    without_MCTHW: torch.Tensor,
    muted_B: torch.Tensor,
    targets_BNP: torch.Tensor,
    threshold: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a step with muted experts should predict.

    Args:
        target_BCTHW: what it should predict otherwise.
        without_MCTHW: the backbone's prediction without the branch, of the clips that are muted.
        muted_B: phenomenon of each clip, or -1 for none.
        targets_BNP: token targets.
        threshold: see :class:`Counterfactual`.

    Returns:
        The target, and where it was changed, bool ``(B, T, H, W)``.
    """
    rows = (muted_B >= 0).nonzero().flatten()
    acts_MN = targets_BNP[rows, :, muted_B[rows]] > threshold
    acts_MTHW = on_latents(acts_MN.float(), target_BCTHW.shape[2:]) > 0
    changed = torch.zeros(len(target_BCTHW), *target_BCTHW.shape[2:], dtype=torch.bool, device=target_BCTHW.device)
    changed[rows] = acts_MTHW
    target = target_BCTHW.clone()
    target[rows] = torch.where(acts_MTHW[:, None], without_MCTHW.to(target.dtype), target[rows])
    return target, changed
