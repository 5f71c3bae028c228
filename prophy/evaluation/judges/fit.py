"""The one way in which the small judges of the evaluation are trained, kept and found again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from prophy.files import replacing


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


def save_fitted(model: nn.Module, recipe: object, work: Path, name: str) -> None:
    """Write ``work/name.safetensors``, whole or not at all, with the recipe, a dataclass, in its header."""
    work.mkdir(parents=True, exist_ok=True)
    weights = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    with replacing(work / f"{name}.safetensors") as temporary:
        save_file(weights, temporary, {"recipe": json.dumps(asdict(recipe))})


def fitted_weights(work: Path, name: str) -> dict[str, torch.Tensor]:
    """What :func:`save_fitted` wrote.

    Raises:
        FileNotFoundError: the judge has not been trained.
    """
    path = Path(work) / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `prophy evaluate {name} --work {work}` first")
    return load_file(path)
