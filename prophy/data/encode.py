"""Clips and captions as a transformer takes them: normalised latents and text embeddings.

Shapes: B batch, C latent channels, T latent frames, h and w latent rows and columns, F video frames, L text length,
D text width.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from diffusers import DiffusionPipeline
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from prophy.backbones.autoencoder import normalise, to_pixels
from prophy.backbones.pipeline import rules_of
from prophy.files import sha256, some_of
from prophy.generation.words import too_long

log = logging.getLogger(__name__)


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


def vocabulary_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of a tokenizer's pieces and their ids."""
    return sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True))


def readable(pipeline: DiffusionPipeline, captions: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The captions that the pipeline reads to their end, by clip; clips without any are counted and named in a warning.

    Args:
        pipeline: whose tokenizer counts.
        captions: of each clip, by its id.

    Raises:
        ValueError: no clip has any.
    """
    limit = rules_of(pipeline).text_tokens
    long = too_long(pipeline.tokenizer, (text for texts in captions.values() for text in texts), limit)
    kept = {name: tuple(text for text in texts if text not in long) for name, texts in captions.items()}
    if unread := [
        f"{name} ({min(long[text] for text in captions[name])})" for name, texts in kept.items() if not texts
    ]:
        said = f"captions longer than the {limit} tokens that the model reads: {some_of(unread)}; shorten them"
        if len(unread) == len(captions):
            raise ValueError(f"every clip has {said}")
        log.warning("left out %d of %d clips, with %s", len(unread), len(captions), said)
    return {name: texts for name, texts in kept.items() if texts}


@torch.inference_mode()
def encode_captions(pipeline: DiffusionPipeline, captions: Sequence[str]) -> torch.Tensor:
    """Embeddings as generation passes them to the transformer, padded to its length, ``(B, L, D)``.

    Raises:
        ValueError: a caption is longer than the pipeline reads; see :func:`readable`.
    """
    length = rules_of(pipeline).text_tokens  # the stock default of encode_prompt alone is another
    for text, count in too_long(pipeline.tokenizer, captions, length).items():
        raise ValueError(f"{text[:60]!r} is {count} tokens long and the model reads {length}: shorten it")
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
