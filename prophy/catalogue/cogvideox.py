"""CogVideoX without torch: its published models, and what it asks of a clip.

How the configurations were verified: ``tests/test_published.py`` builds the models on the meta device and counts their
parameters, 5,570 M for 5B as its weights have. The transformers were compared with diffusers'
``scripts/convert_cogvideox_to_diffusers.py``. The defaults of diffusers' autoencoder are those of 2B; 5B differs in
the scaling factor. Sizes, frames, rates, steps and guidance are what the model cards recommend; they decide nothing but
defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from prophy.catalogue.families import FamilyFacts
from prophy.catalogue.limits import ClipRules
from prophy.catalogue.published import PublishedModel, t5_xxl
from prophy.grid import TEMPORAL

_TRANSFORMER = "CogVideoXTransformer3DModel"


def clip_rules(transformer: Mapping[str, Any], vae: Mapping[str, Any], tokenizer_limit: float) -> ClipRules:
    """What a CogVideoX asks of a clip; see :data:`prophy.catalogue.families.ClipRulesOf`."""
    patch = transformer.get("patch_size", 2)
    cell = patch * 2 ** (len(vae.get("block_out_channels", (0,) * 4)) - 1)
    return ClipRules(
        channels=vae.get("latent_channels", 16),
        patch=patch,
        cell=cell,
        size_step=cell,
        # its autoencoder makes 1 + 4k frames of an odd number of latent frames only, and 4k of an even one
        frame_step=2 * TEMPORAL,
        # its positions are laid out for one length of text, which is not the tokenizer's to choose
        text_tokens=transformer.get("max_text_seq_length", 226),
        frames_first=True,
        frame_patch=transformer.get("patch_size_t") or 1,  # CogVideoX 1.5: 2
    )


def _transformer(heads: int, layers: int, *, rotary: bool) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "num_attention_heads": heads,
            "attention_head_dim": 64,
            "in_channels": 16,
            "out_channels": 16,
            "time_embed_dim": 512,
            "text_embed_dim": 4096,
            "num_layers": layers,
            "attention_bias": True,
            "sample_width": 90,
            "sample_height": 60,
            "sample_frames": 49,
            "patch_size": 2,
            "max_text_seq_length": 226,
            "use_rotary_positional_embeddings": rotary,
        }
    )


def _vae(scaling_factor: float) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "down_block_types": ["CogVideoXDownBlock3D"] * 4,
            "up_block_types": ["CogVideoXUpBlock3D"] * 4,
            "block_out_channels": [128, 256, 256, 512],
            "latent_channels": 16,
            "layers_per_block": 3,
            "scaling_factor": scaling_factor,
        }
    )


_COMMON: dict[str, Any] = {
    "transformer_class": _TRANSFORMER,
    "vae_class": "AutoencoderKLCogVideoX",
    "text_encoder_class": "T5EncoderModel",
    "text_encoder": t5_xxl(32128),
    "text_tokens": 226,
    "width": 720,
    "height": 480,
    "frames": 49,
    "fps": 8,
    "steps": 50,
    "guidance": 6.0,
}

COGVIDEOX = FamilyFacts(
    transformer_class=_TRANSFORMER,
    clip_rules=clip_rules,
    blocks="transformer_blocks",
    published=MappingProxyType(
        {
            "cogvideox-2b": PublishedModel(
                name="CogVideoX-2B",
                repo="THUDM/CogVideoX-2b",
                transformer=_transformer(heads=30, layers=30, rotary=False),
                vae=_vae(1.15258426),
                licence="Apache-2.0",
                **_COMMON,
            ),
            "cogvideox-5b": PublishedModel(
                name="CogVideoX-5B",
                repo="THUDM/CogVideoX-5b",
                transformer=_transformer(heads=48, layers=42, rotary=True),
                vae=_vae(0.7),
                licence="CogVideoX License",
                **_COMMON,
            ),
        }
    ),
)
