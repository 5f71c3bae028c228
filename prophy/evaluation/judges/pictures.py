"""What the judges see of clips, what is done to it while they learn, and the block that they are made of.

Shapes: n or B clips, F frames of H×W pixels, of which F' are looked at, h×w pixels of them seen.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from diffusers import ModelMixin
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from prophy.backbones.autoencoder import to_frames, to_pixels
from prophy.worlds import Scenario, Stage
from prophy.worlds.sample import render
from prophy.worlds.stage import BACKGROUNDS

ROWS = 64  #: of pixels that a judge of whole clips sees, at least: what is larger is averaged down by a whole factor


def seen(frames_nFHWC: np.ndarray, looked_at: int) -> np.ndarray:
    """What a judge sees of whole clips, uint8 ``(n, F', h, w, 3)``."""
    chosen = np.linspace(0, frames_nFHWC.shape[1] - 1, looked_at).round().astype(int)
    return shrunk(frames_nFHWC[:, chosen], max(1, frames_nFHWC.shape[2] // ROWS))


def seen_of(frames_nFHWC: np.ndarray, stage: Stage, looked_at: int) -> np.ndarray:
    """As :func:`seen`, of whole clips of a stage, or what is seen of them already.

    Raises:
        ValueError: clips of another size.
    """
    factor = max(1, stage.height // ROWS)
    if frames_nFHWC.shape[1:] == (stage.frames, stage.height, stage.width, 3):
        return seen(frames_nFHWC, looked_at)
    if frames_nFHWC.shape[1:] == (looked_at, stage.height // factor, stage.width // factor, 3):
        return frames_nFHWC
    raise ValueError(
        f"clips of shape {frames_nFHWC.shape[1:]} are not {stage.frames}×{stage.height}×{stage.width}×3:"
        " generate them so"
    )


def shrunk(frames_nFHWC: np.ndarray, factor: int) -> np.ndarray:
    """Frames averaged down by a whole factor, uint8."""
    if factor == 1:
        return frames_nFHWC
    height, width = (side // factor for side in frames_nFHWC.shape[2:4])
    made = np.empty((*frames_nFHWC.shape[:2], height, width, 3), np.uint8)
    for clip, small in zip(frames_nFHWC, made, strict=True):
        for f, frame in enumerate(clip):
            small[f] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return made


def stacked(frames_BFHWC: np.ndarray) -> torch.Tensor:
    """What a judge sees, uint8 ``(B, F', h, w, 3)``, as channels from -1 to 1 ``(B, 3F', h, w)``."""
    return to_pixels(frames_BFHWC).transpose(1, 2).flatten(1, 2)


def degraded(x_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What generated clips do to a picture: contrast, brightness, colour, softness and noise all go a little wrong."""

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    batch = len(x_BCHW)
    colour_BC11 = 0.24 * (uniform(batch, 3, 1, 1) - 0.5)
    x = x_BCHW * (1 + 0.5 * (uniform(batch, 1, 1, 1) - 0.5)) + 0.3 * (uniform(batch, 1, 1, 1) - 0.5)
    x = x + colour_BC11.repeat(1, x.shape[1] // 3, 1, 1)
    soft = functional.avg_pool2d(x, 3, 1, 1)
    coarse = functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2, mode="bilinear", align_corners=False)
    x = torch.where(uniform(batch, 1, 1, 1) < 0.3, coarse, torch.lerp(x, soft, uniform(batch, 1, 1, 1)))
    x = x + 0.12 * uniform(batch, 1, 1, 1) * torch.randn(x.shape, generator=generator)
    return x.clamp(-1.2, 1.2)


def empty_stages(stage: Stage, looked_at: int) -> np.ndarray:
    """What is seen of every backdrop with nothing on it, uint8 ``(settings, F', h, w, 3)``."""
    stages = [render(Scenario((), name), np.random.default_rng(0), stage=stage)[0] for name in BACKGROUNDS]
    return seen(np.stack(stages), looked_at)


@torch.no_grad()
def through_autoencoder(frames_nFHWC: np.ndarray, vae: ModelMixin, batch: int = 8) -> np.ndarray:
    """Whole clips, uint8 ``(n, F, H, W, 3)``, encoded and decoded: the best any generated clip can look."""
    parts = []
    for i in tqdm(range(0, len(frames_nFHWC), batch), "autoencoder", mininterval=5, unit="batch"):
        video = to_pixels(frames_nFHWC[i : i + batch]).to(vae.device, vae.dtype)
        parts.append(to_frames(vae.decode(vae.encode(video).latent_dist.mode()).sample))
    return np.concatenate(parts)


class Residual(nn.Module):
    """One convolution beside the identity."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm = nn.GroupNorm(8, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + functional.silu(self.norm(self.conv(x)))
