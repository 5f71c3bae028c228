"""Flow matching on cached latents: batches, the loss, and validation at fixed noise levels.

Shapes: B batch, C channels, T latent frames, H height, W width, N tokens, L text length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from prophy.data.encode import empty_prompt
from prophy.data.latents import LatentCache

NOISE_LEVELS = (0.2, 0.5, 0.8, 0.95)  #: noise shares at which validation losses and localisation are reported


@dataclass(frozen=True)
class FlowBatch:
    """Noisy latents and what the network should say about them.

    Attributes:
        noisy_BCTHW: ``(1-σ) x + σ ε``.
        velocity_BCTHW: the target ``ε - x``.
        timestep_B: ``1000 σ``, as schedulers count.
        ids_BL: token ids of the captions; an empty caption trains the unconditional pass.
        described_B: which rows kept their caption.
        weight_BTHW: weight of each position in the loss, mean 1.
        rows: the clips' rows in the cache.
    """

    noisy_BCTHW: torch.Tensor
    velocity_BCTHW: torch.Tensor
    timestep_B: torch.Tensor
    ids_BL: torch.Tensor
    described_B: torch.Tensor
    weight_BTHW: torch.Tensor
    rows: np.ndarray


def flow_batch(
    cache: LatentCache,
    step: int,
    batch: int,
    seed: int,
    *,
    null_share: float = 0.1,
    foreground_weight: float = 2.0,
    sigma_mean: float = 0.3,
    sigma_std: float = 1.1,
) -> FlowBatch:
    """The batch of a training step: a function of ``(seed, step)`` alone, so a resumed run sees the same.

    Noise shares are logit-normal. The loss weighs the tokens where physics happens ``1 + foreground_weight`` times:
    most of a frame is wall, and an unweighted loss is content with an empty scene for long.
    """
    rng = np.random.default_rng([seed, step])
    rows = np.sort(rng.integers(0, len(cache), batch))
    clean = torch.from_numpy(cache.latents[rows].astype(np.float32))
    ids = torch.from_numpy(cache.ids[rows, rng.integers(0, cache.ids.shape[1], batch)].astype(np.int64))
    described = torch.from_numpy(rng.random(batch) >= null_share)
    ids[~described] = empty_prompt(ids.shape[1])
    sigma = torch.sigmoid(torch.from_numpy(rng.normal(sigma_mean, sigma_std, batch)).float())
    noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    weight = 1 + foreground_weight * torch.from_numpy(cache.masks[rows].max(1).astype(np.float32) / 255)
    return _mix(clean, noise, sigma, ids, described, (weight / weight.mean()).view(batch, *clean.shape[2:]), rows)


def fixed_batch(cache: LatentCache, rows: np.ndarray, sigma: float, seed: int = 0) -> FlowBatch:
    """Clips ``rows`` at one noise share with the same noise every time, for validation."""
    clean = torch.from_numpy(cache.latents[rows].astype(np.float32))
    noise = torch.from_numpy(np.random.default_rng([seed, int(rows[0])]).standard_normal(clean.shape, dtype=np.float32))
    ids = torch.from_numpy(cache.ids[rows, 0].astype(np.int64))
    kept = torch.ones(len(rows), dtype=torch.bool)
    weight = torch.ones(len(rows), *clean.shape[2:])
    return _mix(clean, noise, torch.full((len(rows),), sigma), ids, kept, weight, rows)


def _mix(clean, noise, sigma, ids, described, weight, rows) -> FlowBatch:
    share = sigma.view(-1, 1, 1, 1, 1)
    return FlowBatch((1 - share) * clean + share * noise, noise - clean, 1000 * sigma, ids, described, weight, rows)


def flow_loss(prediction_BCTHW: torch.Tensor, batch: FlowBatch) -> torch.Tensor:
    """Weighted mean squared error of the velocity."""
    error = (prediction_BCTHW.float() - batch.velocity_BCTHW).square().mean(1)
    return (batch.weight_BTHW * error).mean()
