"""The one way in which the small judges of the evaluation are trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from tqdm import tqdm


def minimise(
    model: nn.Module,
    loss_at: Callable[[int], torch.Tensor],
    *,
    steps: int,
    rate: float,
    weight_decay: float,
    warm_up: float,
    name: str,
) -> None:
    """AdamW with one cycle of the learning rate.

    Args:
        model: changed in place.
        loss_at: of a step, from 0; a scalar with gradients.
        steps: in all.
        rate: peak learning rate.
        weight_decay: decoupled.
        warm_up: share of the steps in which the rate rises.
        name: of the progress bar.
    """
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=warm_up)
    bar = tqdm(range(steps), desc=name, mininterval=5, unit="step")
    for step in bar:
        loss = loss_at(step)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 25 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.4f}", refresh=False)
