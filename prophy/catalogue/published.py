"""The published text-to-video models: what is kept of each, and which of them a configuration belongs to (no torch).

The models themselves stand in their families' files, :mod:`prophy.catalogue.wan` and its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from prophy.catalogue.limits import GenerationDefaults


@dataclass(frozen=True)
class PublishedModel:
    """One published text-to-video model.

    Attributes:
        name: as its authors write it.
        repo: hub id of the diffusers format.
        transformer_class: class name of the transformer.
        transformer: its configuration.
        transformers: how many of them, one after the other along the noise; a branch serves all.
        vae_class: diffusers class of the autoencoder.
        vae: its configuration.
        text_encoder_class: transformers class of the text encoder.
        text_encoder: its configuration.
        text_tokens: length the prompt is padded to.
        width: pixels, as recommended.
        height: pixels, as recommended.
        frames: video frames, as recommended.
        fps: frames per second of the clips it was trained on.
        steps: denoising steps, as recommended.
        guidance: classifier-free guidance scale, as recommended.
        licence: of the weights.
        negative_prompt: as its authors' code has it by default.
        guidance_2: scale at low noise, of a model with two transformers, as recommended.
        flow_shift: as recommended; None: as its scheduler's file says.
        pipeline_config: settings of its pipeline, as ``model_index.json`` holds them beside the parts.
    """

    name: str
    repo: str
    transformer_class: str
    transformer: Mapping[str, Any]
    vae_class: str
    vae: Mapping[str, Any]
    text_encoder_class: str
    text_encoder: Mapping[str, Any]
    text_tokens: int
    width: int
    height: int
    frames: int
    fps: int
    steps: int
    guidance: float
    licence: str
    negative_prompt: str = ""
    guidance_2: float | None = None
    flow_shift: float | None = None
    transformers: int = 1
    pipeline_config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def defaults(self) -> GenerationDefaults:
        """What it makes unless told otherwise."""
        return GenerationDefaults(
            self.width,
            self.height,
            self.frames,
            float(self.fps),
            self.steps,
            self.guidance,
            self.negative_prompt,
            self.guidance_2,
            self.flow_shift,
        )


_MODELS: dict[str, PublishedModel] = {}

#: Every published model of the registered families, by the short name that commands take.
PUBLISHED: Mapping[str, PublishedModel] = MappingProxyType(_MODELS)


def add_published(models: Mapping[str, PublishedModel]) -> None:
    """Make models known by their short names; :func:`prophy.catalogue.families.register` calls it."""
    _MODELS.update(models)


def published_like(
    transformer_class: str, transformer: Mapping[str, Any], transformers: int = 1
) -> PublishedModel | None:
    """The published model that so many transformers of a configuration have the shape of: itself, or a fine-tune."""
    kind = transformer_class, transformers
    for model in PUBLISHED.values():
        settings = ((_plain(transformer.get(key)), _plain(value)) for key, value in model.transformer.items())
        if kind == (model.transformer_class, model.transformers) and all(theirs == ours for theirs, ours in settings):
            return model
    return None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value  # JSON knows no tuples


def t5_xxl(vocabulary: int) -> Mapping[str, Any]:
    """Configuration of the XXL text encoder of T5's line, which several families use with a vocabulary each."""
    return MappingProxyType(
        {
            "vocab_size": vocabulary,
            "d_model": 4096,
            "d_kv": 64,
            "d_ff": 10240,
            "num_layers": 24,
            "num_heads": 64,
            "feed_forward_proj": "gated-gelu",
            "is_encoder_decoder": False,
        }
    )
