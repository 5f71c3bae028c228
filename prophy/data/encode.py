"""Clips and captions as a transformer takes them: normalised latents and text embeddings.

Shapes: B batch, C latent channels, T latent frames, h and w latent rows and columns, F video frames, L text length,
D text width.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline
from transformers import UMT5EncoderModel

from prophy.backbones.pipeline import rules_of


def normalise(latents: torch.Tensor, vae: AutoencoderKLWan) -> torch.Tensor:
    """Raw autoencoder latents to the scale the transformer works in (the inverse of what pipelines do)."""
    shape = (1, -1, 1, 1, 1)
    return (latents - torch.tensor(vae.config.latents_mean).view(shape)) / torch.tensor(vae.config.latents_std).view(
        shape
    )


@torch.inference_mode()
def encode_clip(pipeline: DiffusionPipeline, frames_FHW3: np.ndarray) -> torch.Tensor:
    """A clip's latents, scaled as the pipeline's transformer takes them.

    Args:
        pipeline: with an ``AutoencoderKLWan`` or an ``AutoencoderKLCogVideoX``.
        frames_FHW3: uint8 RGB.

    Returns:
        ``(C, T, h, w)``, of the autoencoder's dtype.
    """
    vae = pipeline.vae
    video = torch.from_numpy(np.ascontiguousarray(frames_FHW3)).permute(3, 0, 1, 2)[None]
    latents = vae.encode(video.to(vae.device, vae.dtype) / 127.5 - 1).latent_dist.mode()
    if getattr(vae.config, "latents_mean", None) is None:
        return latents[0] * vae.config.scaling_factor
    mean, std = (
        torch.tensor(values, device=latents.device).view(-1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return ((latents[0].float() - mean) / std).to(latents.dtype)


@torch.inference_mode()
def encode_caption(pipeline: DiffusionPipeline, caption: str) -> torch.Tensor:
    """A caption's embeddings as generation passes them to the transformer, padded to its length, ``(L, D)``."""
    length = rules_of(pipeline).text_tokens  # the stock default of encode_prompt alone is another
    return pipeline.encode_prompt(prompt=caption, do_classifier_free_guidance=False, max_sequence_length=length)[0][0]


def encode_text(encoder: UMT5EncoderModel, ids_BL: torch.Tensor) -> torch.Tensor:
    """Embeddings ``(B, L, D)``, zero after the end of the prompt: exactly what ``WanPipeline`` passes on."""
    mask = ids_BL.ne(0).long()
    return encoder(input_ids=ids_BL, attention_mask=mask).last_hidden_state * mask[..., None]


def empty_prompt(length: int) -> torch.Tensor:
    """Token ids of the empty prompt: the end mark, then padding."""
    return torch.tensor([1] + [0] * (length - 1))
