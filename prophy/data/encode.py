"""Clips and captions as a transformer takes them: normalised latents and text embeddings.

Shapes: B batch, C latent channels, T latent frames, h and w latent rows and columns, F video frames, L text length,
D text width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DiffusionPipeline
from transformers import UMT5EncoderModel

from prophy.backbones.autoencoder import normalise, to_pixels
from prophy.backbones.pipeline import rules_of


@torch.inference_mode()
def encode_clip(pipeline: DiffusionPipeline, frames_FHW3: np.ndarray) -> torch.Tensor:
    """A clip's latents, scaled as the pipeline's transformer takes them.

    Args:
        pipeline: of a registered family.
        frames_FHW3: uint8 RGB.

    Returns:
        ``(C, T, h, w)``, of the autoencoder's dtype.
    """
    vae = pipeline.vae
    latents = vae.encode(to_pixels(frames_FHW3)[None].to(vae.device, vae.dtype)).latent_dist.mode()
    return normalise(latents, vae)[0].to(latents.dtype)


@torch.inference_mode()
def encode_captions(pipeline: DiffusionPipeline, captions: Sequence[str]) -> torch.Tensor:
    """Embeddings as generation passes them to the transformer, padded to its length, ``(B, L, D)``."""
    length = rules_of(pipeline).text_tokens  # the stock default of encode_prompt alone is another
    return pipeline.encode_prompt(prompt=list(captions), do_classifier_free_guidance=False, max_sequence_length=length)[
        0
    ]


def encode_caption(pipeline: DiffusionPipeline, caption: str) -> torch.Tensor:
    """One caption's embeddings, ``(L, D)``; see :func:`encode_captions`."""
    return encode_captions(pipeline, [caption])[0]


def encode_text(encoder: UMT5EncoderModel, ids_BL: torch.Tensor) -> torch.Tensor:
    """Embeddings ``(B, L, D)``, zero after the end of the prompt, just as the embedded model's stock pipeline does."""
    mask = ids_BL.ne(0).long()
    return encoder(input_ids=ids_BL, attention_mask=mask).last_hidden_state * mask[..., None]


def empty_prompt(length: int) -> torch.Tensor:
    """Token ids of the empty prompt: the end mark, then padding."""
    return torch.tensor([1] + [0] * (length - 1))
