"""The autoencoder computed faster while it is trained on a CPU with bf16 units; the same function, tested to be so.

The stock model computes a clip in chunks of four frames, with a cache between them, which bounds memory at any
length. Seventeen frames fit at once: a quarter of the operations, each on four times as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, WanRMS_norm, patchify, unpatchify
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch.nn import functional as F


def encode(vae: AutoencoderKLWan, video_BCTHW: torch.Tensor) -> DiagonalGaussianDistribution:
    """``vae.encode`` of clips of 1 + 4k frames in one piece: the posterior of their latents."""
    patches = patchify(video_BCTHW, vae.config.patch_size).contiguous(memory_format=torch.channels_last_3d)
    with _whole_clips():
        return DiagonalGaussianDistribution(vae.quant_conv(vae.encoder(patches)))


def decode(vae: AutoencoderKLWan, latents_BCThw: torch.Tensor) -> torch.Tensor:
    """``vae.decode`` of clips in one piece, their pixels not clipped to [-1, 1], so that each has a gradient."""
    with _whole_clips():
        patches = vae.decoder(vae.post_quant_conv(latents_BCThw), first_chunk=True)
    return unpatchify(patches, vae.config.patch_size)


@contextmanager
def _whole_clips() -> Iterator[None]:
    """Inside the block norms work in bf16, a third less time a step, and resampling on whole clips."""
    norm, resample = WanRMS_norm.forward, WanResample.forward
    WanRMS_norm.forward = lambda self, x: _RmsNorm.apply(x, self.gamma)
    WanResample.forward = _resample
    try:
        yield
    finally:
        WanRMS_norm.forward, WanResample.forward = norm, resample


class _RmsNorm(torch.autograd.Function):
    """RMS normalisation over channels, with the few passes over memory it needs."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        inverse = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).square() / x.shape[1]
        inverse = torch.rsqrt(inverse + 1e-12).to(x.dtype)
        normal = x * inverse
        ctx.save_for_backward(normal, inverse, gamma)
        return normal * gamma.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        normal, inverse, gamma = ctx.saved_tensors
        grad = grad.to(normal.dtype)
        product = grad * normal
        rest = [d for d in range(grad.ndim) if d != 1]
        grad_gamma = product.sum(rest, keepdim=True, dtype=torch.float32)[0].to(gamma.dtype)
        scale = gamma.to(normal.dtype)
        return (grad * scale - normal * (product * scale).mean(1, keepdim=True)) * inverse, grad_gamma


def _resample(self: WanResample, x_BCTHW: torch.Tensor, feat_cache: None = None, feat_idx: Any = None) -> torch.Tensor:
    """Halve or double a whole clip, as the stock layer does over its chunks.

    The first frame stands alone. Halving, each later one is made of two and the one before them; doubling, the later
    ones do not see the first.
    """
    if self.mode == "upsample3d" and x_BCTHW.shape[2] > 1:
        first, rest = x_BCTHW[:, :, :1], x_BCTHW[:, :, 1:]
        pairs = self.time_conv(rest).unflatten(1, (2, -1))
        x_BCTHW = torch.cat([first, pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)], 2)
    images = x_BCTHW.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    if self.mode.startswith("upsample"):  # nearest is exact in any precision: the stock layer goes through float32
        images = self.resample[1](F.interpolate(images, scale_factor=2.0, mode="nearest-exact"))
    else:
        images = self.resample(images)
    x_BCTHW = images.unflatten(0, (len(x_BCTHW), -1)).transpose(1, 2)
    if self.mode == "downsample3d" and x_BCTHW.shape[2] > 1:
        x_BCTHW = torch.cat([x_BCTHW[:, :, :1], self.time_conv(x_BCTHW)], 2)
    return x_BCTHW
