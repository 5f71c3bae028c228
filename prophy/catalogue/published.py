"""The published backbones: what their configurations are and the clip each was made for. Plain data, no torch.

How each part was verified:

* ``tests/test_published.py`` builds every model from these configurations on the meta device and counts its parameters:
  Wan2.1-1.3B has 1,418,996,800, Wan2.1-14B 14,288 M, CogVideoX-5B 5,570 M, as their weights do.
* Wan2.1's transformers were compared with diffusers' ``scripts/convert_wan_to_diffusers.py``; Wan2.2-A14B's with the
  ``transformer_2/config.json`` of its repository; Wan2.2-TI2V-5B's with the authors' ``wan_ti2v_5B.py``; CogVideoX's
  with ``scripts/convert_cogvideox_to_diffusers.py``.
* Autoencoders: the defaults of diffusers' classes are Wan2.1's and CogVideoX-2B's, 5B differs in the scaling factor;
  Wan2.2's was compared with ``vae/config.json`` of its repository, as others quote it. The statistics of its 48
  channels come with its weights: the ones here are neutral and have the same size.
* UMT5-XXL was compared with the ``text_encoder/config.json`` of a Wan repository.
* Sizes, frames, rates, steps and guidance are what the model cards and the authors' configurations recommend; they
  decide nothing but defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from prophy.catalogue.limits import Recommended


@dataclass(frozen=True)
class PublishedModel:
    """One published text-to-video model.

    Attributes:
        name: as its authors write it.
        repo: hub id of the diffusers format.
        transformer_class: diffusers class of the transformer.
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
        boundary_ratio: share of the noise above which the first of two transformers works.
        expand_timesteps: whether every token has its own timestep.
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
    transformers: int = 1
    boundary_ratio: float | None = None
    expand_timesteps: bool = False

    @property
    def recommended(self) -> Recommended:
        return Recommended(self.width, self.height, self.frames, float(self.fps), self.steps, self.guidance)


def _wan(heads: int, ffn: int, layers: int, channels: int = 16) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "patch_size": (1, 2, 2),
            "num_attention_heads": heads,
            "attention_head_dim": 128,
            "in_channels": channels,
            "out_channels": channels,
            "text_dim": 4096,
            "freq_dim": 256,
            "ffn_dim": ffn,
            "num_layers": layers,
            "cross_attn_norm": True,
            "qk_norm": "rms_norm_across_heads",
            "eps": 1e-6,
            "rope_max_seq_len": 1024,
        }
    )


def _cogvideox(heads: int, layers: int, *, rotary: bool) -> Mapping[str, Any]:
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


def _t5_xxl(vocabulary: int) -> Mapping[str, Any]:
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


_UMT5_XXL = _t5_xxl(256384)
_T5_V1_1_XXL = _t5_xxl(32128)

_WAN21_VAE = MappingProxyType({"base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2})
_WAN22_VAE = MappingProxyType(
    {
        "base_dim": 160,
        "decoder_base_dim": 256,
        "z_dim": 48,
        "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
        "scale_factor_temporal": 4,
        "latents_mean": [0.0] * 48,
        "latents_std": [1.0] * 48,
    }
)


def _cogvideox_vae(scaling_factor: float) -> Mapping[str, Any]:
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


_WAN = {
    "transformer_class": "WanTransformer3DModel",
    "vae_class": "AutoencoderKLWan",
    "text_encoder_class": "UMT5EncoderModel",
    "text_encoder": _UMT5_XXL,
    "text_tokens": 512,
    "licence": "Apache-2.0",
}
_COGVIDEOX = {
    "transformer_class": "CogVideoXTransformer3DModel",
    "vae_class": "AutoencoderKLCogVideoX",
    "text_encoder_class": "T5EncoderModel",
    "text_encoder": _T5_V1_1_XXL,
    "text_tokens": 226,
    "width": 720,
    "height": 480,
    "frames": 49,
    "fps": 8,
    "steps": 50,
    "guidance": 6.0,
}

PUBLISHED: Mapping[str, PublishedModel] = MappingProxyType(
    {
        "wan2.1-1.3b": PublishedModel(
            name="Wan2.1-T2V-1.3B",
            repo="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            transformer=_wan(heads=12, ffn=8960, layers=30),
            vae=_WAN21_VAE,
            width=832,
            height=480,
            frames=81,
            fps=16,
            steps=50,
            guidance=5.0,
            **_WAN,
        ),
        "wan2.1-14b": PublishedModel(
            name="Wan2.1-T2V-14B",
            repo="Wan-AI/Wan2.1-T2V-14B-Diffusers",
            transformer=_wan(heads=40, ffn=13824, layers=40),
            vae=_WAN21_VAE,
            width=1280,
            height=720,
            frames=81,
            fps=16,
            steps=50,
            guidance=5.0,
            **_WAN,
        ),
        "wan2.2-a14b": PublishedModel(
            name="Wan2.2-T2V-A14B",
            repo="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
            transformer=_wan(heads=40, ffn=13824, layers=40),
            transformers=2,
            boundary_ratio=0.875,
            vae=_WAN21_VAE,
            width=1280,
            height=720,
            frames=81,
            fps=16,
            steps=40,
            guidance=4.0,
            **_WAN,
        ),
        "wan2.2-ti2v-5b": PublishedModel(
            name="Wan2.2-TI2V-5B",
            repo="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            transformer=_wan(heads=24, ffn=14336, layers=30, channels=48),
            expand_timesteps=True,
            vae=_WAN22_VAE,
            width=1280,
            height=704,
            frames=121,
            fps=24,
            steps=50,
            guidance=5.0,
            **_WAN,
        ),
        "cogvideox-2b": PublishedModel(
            name="CogVideoX-2B",
            repo="THUDM/CogVideoX-2b",
            transformer=_cogvideox(heads=30, layers=30, rotary=False),
            vae=_cogvideox_vae(1.15258426),
            licence="Apache-2.0",
            **_COGVIDEOX,
        ),
        "cogvideox-5b": PublishedModel(
            name="CogVideoX-5B",
            repo="THUDM/CogVideoX-5b",
            transformer=_cogvideox(heads=48, layers=42, rotary=True),
            vae=_cogvideox_vae(0.7),
            licence="CogVideoX License",
            **_COGVIDEOX,
        ),
    }
)


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
