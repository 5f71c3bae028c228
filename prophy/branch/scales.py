"""Steering of a router: one scale for each expert (fig. 8).

Shapes: E experts.
"""

from __future__ import annotations

import torch


def steered_softmax(logits_E: torch.Tensor, scale_E: torch.Tensor | None = None) -> torch.Tensor:
    """A router's softmax, steered.

    Args:
        logits_E: float32 ``(..., E)``.
        scale_E: zero or more multiplies the expert's probability, renormalised (0 mutes, 2 boosts); below zero
            multiplies its logit (-1 inverts). None and all ones are exactly the plain softmax.

    Raises:
        ValueError: every expert is muted.
    """
    if scale_E is None or bool((scale_E == 1).all()):
        return logits_E.softmax(-1)
    if bool((scale_E == 0).all()):
        raise ValueError("every expert is muted: leave at least one")
    scale_E = scale_E.to(logits_E)
    # In logits, not in probabilities: with a muted expert far ahead those of the others would round to zero.
    multiplied = logits_E + scale_E.clamp(min=0).log()
    return torch.where(scale_E < 0, scale_E * logits_E, multiplied).softmax(-1)
