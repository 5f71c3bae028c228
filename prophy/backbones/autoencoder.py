"""Clips as an autoencoder takes and gives them: pixels between -1 and 1, latents on the transformer's scale.

Shapes: B batch, C latent channels, T latent frames, h and w latent rows and columns, F video frames of H×W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def to_pixels(frames: np.ndarray) -> torch.Tensor:
    """uint8 RGB ``(…, F, H, W, 3)`` to float32 ``(…, 3, F, H, W)`` between -1 and 1."""
    return torch.from_numpy(np.array(frames)).movedim(-1, -4).float() / 127.5 - 1


def to_frames(pixels: torch.Tensor) -> np.ndarray:
    """The inverse of :func:`to_pixels`; what lies beyond -1 and 1 is cut."""
    levels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.movedim(-4, -1).contiguous().cpu().numpy()


def normalise(latents_BCThw: torch.Tensor, vae: nn.Module) -> torch.Tensor:
    """An autoencoder's latents on the scale that its pipeline's transformer works in, float32; pipelines undo it.

    By each channel's mean and standard deviation where the configuration has them, else by one factor.
    """
    latents_BCThw, config = latents_BCThw.float(), vae.config
    if getattr(config, "latents_mean", None) is None:
        return latents_BCThw * config.scaling_factor
    mean, std = (
        torch.tensor(values, device=latents_BCThw.device).view(-1, 1, 1, 1)
        for values in (config.latents_mean, config.latents_std)
    )
    return (latents_BCThw - mean) / std


def scale_of(vae: nn.Module) -> tuple[float, ...]:
    """The numbers by which :func:`normalise` scales latents: means, then standard deviations; or the one factor."""
    config = vae.config
    if getattr(config, "latents_mean", None) is None:
        return (config.scaling_factor,)
    return (*config.latents_mean, *config.latents_std)


def channels_last(model: nn.Module) -> nn.Module:
    """Lay convolution weights out channels-last: half the time on a CPU with bf16 units."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model
