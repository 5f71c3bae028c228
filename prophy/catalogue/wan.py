"""Wan2.1 and Wan2.2 without torch: their published models, and what they ask of a clip.

How the configurations were verified:

* ``tests/test_published.py`` builds the models on the meta device and counts their parameters: Wan2.1-1.3B has
  1,418,996,800, Wan2.1-14B 14,288 M, as their weights do.
* Wan2.1's transformers were compared with diffusers' ``scripts/convert_wan_to_diffusers.py``; Wan2.2-A14B's with the
  ``transformer_2/config.json`` of its repository; Wan2.2-TI2V-5B's with the authors' ``wan_ti2v_5B.py``.
* Autoencoders: the defaults of diffusers' class are Wan2.1's; Wan2.2's was compared with ``vae/config.json`` of its
  repository, as others quote it. The statistics of its 48 channels come with its weights: the ones here are neutral and
  have the same size.
* UMT5-XXL was compared with the ``text_encoder/config.json`` of a Wan repository.
* The negative prompt, the shifts and both guidances of A14B are those of the authors' configurations
  (``shared_config.py``, ``wan_t2v_A14B.py``, ``wan_ti2v_5B.py``, and Wan2.1's ``generate.py``).
* Sizes, frames, rates, steps and guidance are what the model cards and the authors' configurations recommend; they
  decide nothing but defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from prophy.catalogue.families import FamilyFacts
from prophy.catalogue.limits import LONGEST_PROMPT_TOKENS, ClipRules
from prophy.catalogue.published import PublishedModel, t5_xxl
from prophy.grid import TEMPORAL

_TRANSFORMER = "WanTransformer3DModel"
_SIZE_STEP = 16  # the stock pipeline refuses sizes that this does not divide, whatever its parts are


def clip_rules(transformer: Mapping[str, Any], vae: Mapping[str, Any], tokenizer_limit: float) -> ClipRules:
    """What a Wan asks of a clip; see :data:`prophy.catalogue.families.ClipRulesOf`."""
    patch = tuple(transformer.get("patch_size", (1, 2, 2)))[1]
    cell = patch * vae.get("scale_factor_spatial", 8)
    return ClipRules(
        channels=vae.get("z_dim", 16),
        patch=patch,
        cell=cell,
        size_step=math.lcm(cell, _SIZE_STEP),
        frame_step=TEMPORAL,
        text_tokens=int(min(tokenizer_limit, LONGEST_PROMPT_TOKENS)),
        frames_first=False,
    )


def _transformer(heads: int, ffn: int, layers: int, channels: int = 16) -> Mapping[str, Any]:
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


_VAE_21 = MappingProxyType({"base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2})
_VAE_22 = MappingProxyType(
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

_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，"
    "手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)

_COMMON: dict[str, Any] = {
    "negative_prompt": _NEGATIVE,
    "transformer_class": _TRANSFORMER,
    "vae_class": "AutoencoderKLWan",
    "text_encoder_class": "UMT5EncoderModel",
    "text_encoder": t5_xxl(256384),
    "text_tokens": 512,
    "licence": "Apache-2.0",
}

WAN = FamilyFacts(
    transformer_class=_TRANSFORMER,
    clip_rules=clip_rules,
    published=MappingProxyType(
        {
            "wan2.1-1.3b": PublishedModel(
                name="Wan2.1-T2V-1.3B",
                repo="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
                transformer=_transformer(heads=12, ffn=8960, layers=30),
                vae=_VAE_21,
                width=832,
                height=480,
                frames=81,
                fps=16,
                steps=50,
                guidance=5.0,
                flow_shift=5.0,
                **_COMMON,
            ),
            "wan2.1-14b": PublishedModel(
                name="Wan2.1-T2V-14B",
                repo="Wan-AI/Wan2.1-T2V-14B-Diffusers",
                transformer=_transformer(heads=40, ffn=13824, layers=40),
                vae=_VAE_21,
                width=1280,
                height=720,
                frames=81,
                fps=16,
                steps=50,
                guidance=5.0,
                flow_shift=5.0,
                **_COMMON,
            ),
            "wan2.2-a14b": PublishedModel(
                name="Wan2.2-T2V-A14B",
                repo="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
                transformer=_transformer(heads=40, ffn=13824, layers=40),
                transformers=2,
                pipeline_config=MappingProxyType({"boundary_ratio": 0.875}),
                vae=_VAE_21,
                width=1280,
                height=720,
                frames=81,
                fps=16,
                steps=40,
                guidance=4.0,
                guidance_2=3.0,
                flow_shift=12.0,
                **_COMMON,
            ),
            "wan2.2-ti2v-5b": PublishedModel(
                name="Wan2.2-TI2V-5B",
                repo="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
                transformer=_transformer(heads=24, ffn=14336, layers=30, channels=48),
                pipeline_config=MappingProxyType({"expand_timesteps": True}),
                vae=_VAE_22,
                width=1280,
                height=704,
                frames=121,
                fps=24,
                steps=50,
                guidance=5.0,
                flow_shift=5.0,
                **_COMMON,
            ),
        }
    ),
)
