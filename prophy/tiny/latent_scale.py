"""How large each latent channel is for the backbone: what a diffusion model learns first, and at which noise.

Whitened channels, as Wan's are, drown at the same noise and weigh the same in the flow loss. Here one channel of 32
holds most of a picture and the last ones a tenth of a pixel's level, so whitening spends nearly all of the loss on what
nobody sees, and lets the layout drown with it. So a channel is made as large as the square root of what it moves in the
picture, between whitening and the pixels' own scale. Ours; pipelines undo it by the configuration's ``latents_std``.

Shapes: B batch, C latent channels, T latent frames, h and w latent rows and columns.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan

from prophy.backbones.autoencoder import to_pixels
from prophy.training.devices import autocast
from prophy.worlds import Stage, sample_clip

_NUDGE = 0.25  # standard deviations by which a channel is moved; several times more leaves what the decoder knows
_LEAST = 1e-3  # of the mean, for a channel that moves nothing


@torch.no_grad()
def latent_scale(
    vae: AutoencoderKLWan, stage: Stage, clips: int = 256, precision: str = "bfloat16"
) -> tuple[list[float], list[float]]:
    """``latents_mean`` and ``latents_std`` for a configuration, measured over training clips.

    Divided by ``latents_std``, channel c deviates by √(m_c / mean m), 1 in the square mean over channels, where m_c is
    the root-mean-square change of a pixel per standard deviation of the channel.

    Args:
        vae: trained.
        stage: of the clips.
        clips: measured; two latent frames of the first two are also decoded.
        precision: of the encoder.
    """
    latents = []
    for i in range(0, clips, 8):
        video = torch.stack([to_pixels(sample_clip(s, "train", stage=stage).frames) for s in range(i, i + 8)])
        with autocast(vae.device, getattr(torch, precision)):
            latents.append(vae.encode(video.to(vae.device)).latent_dist.mode().float())
    latents_BCThw = torch.cat(latents)
    values_C = latents_BCThw.transpose(0, 1).flatten(1)
    mean_C, std_C = values_C.mean(1), values_C.std(1)
    moved_C = _moved_pixels(vae, latents_BCThw[:2, :, :2], std_C)
    share_C = (moved_C / moved_C.mean()).clamp(min=_LEAST)
    return mean_C.tolist(), (std_C / share_C.sqrt()).tolist()


def _moved_pixels(vae: AutoencoderKLWan, latents_BCThw: torch.Tensor, std_C: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    clean = vae.decode(latents_BCThw).sample
    moved = []
    for channel, std in enumerate(std_C):
        nudged_BCThw = latents_BCThw.clone()
        noise = torch.randn(nudged_BCThw[:, channel].shape, generator=generator).to(std.device)
        nudged_BCThw[:, channel] += _NUDGE * std * noise
        moved.append((vae.decode(nudged_BCThw).sample - clean).square().mean().sqrt() / _NUDGE)
    return torch.stack(moved)
