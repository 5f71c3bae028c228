"""What is measured: published models at full size with random weights, or toys of the same classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, UniPCMultistepScheduler

from gpu_parts.machine import Unfit, shortage_named
from prophy.backbones.pipeline import ProPhyPipeline
from prophy.catalogue.describe import ModelConfig, describe_model
from prophy.catalogue.limits import ClipSize
from prophy.memory.footprint import footprint
from prophy.memory.plan import GIB, Plan, plan_parts
from prophy.memory.profiles import Stage
from prophy.memory.stages import Parts, computations, open_parts
from prophy.tiny.text import build_tokenizer

PROMPT = "a red ball bounces on the floor"

#: The clip of each model, as its authors recommend; of 14B the smaller one, so that a pass takes seconds.
CLIPS: Mapping[str, ClipSize] = {
    "wan2.1-1.3b": ClipSize(832, 480, 81),
    "wan2.1-14b": ClipSize(832, 480, 81),
    "cogvideox-5b": ClipSize(720, 480, 49),
    "wan2.2-ti2v-5b": ClipSize(1280, 704, 121),
}
_SMALL_CLIP = ClipSize(64, 64, 9)
_SMALL_TEXT = {"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
_SMALL_HEADS = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 3}


@dataclass(frozen=True)
class Subject:
    """A model and the clip it makes.

    Attributes:
        name: its short name.
        config: its configurations, or a toy's of the same classes.
        clip: what to make.
    """

    name: str
    config: ModelConfig
    clip: ClipSize

    @property
    def size(self) -> str:
        return f"{self.clip.width}x{self.clip.height}x{self.clip.frames}"

    def without_text_encoder(self) -> Subject:
        """The same with a toy in its place, for what does not read prompts."""
        return replace(self, config=replace(self.config, text_encoder={**self.config.text_encoder, **_SMALL_TEXT}))


def subject(name: str, small: bool) -> Subject:
    """A published model by its short name, or a toy with its classes."""
    config = describe_model(name)
    return Subject(name, _shrunk(config) if small else config, _SMALL_CLIP if small else CLIPS[name])


def _shrunk(config: ModelConfig) -> ModelConfig:
    transformer: dict[str, Any] = {**config.transformer, **_SMALL_HEADS}
    vae: dict[str, Any] = dict(config.vae)
    if config.transformer_class.startswith("Wan"):
        transformer |= {"ffn_dim": 64, "freq_dim": 16, "text_dim": 32}
        vae |= {"base_dim": 8, "num_res_blocks": 1} | ({"decoder_base_dim": 8} if "decoder_base_dim" in vae else {})
    else:
        transformer |= {"time_embed_dim": 16, "text_embed_dim": 32, "max_text_seq_length": 16}
        vae |= {"block_out_channels": [8] * 4, "layers_per_block": 1, "norm_num_groups": 2}
    text = {**config.text_encoder, **_SMALL_TEXT}
    return replace(config, transformer=transformer, vae=vae, text_encoder=text, tokenizer_limit=16)


# --- what the plan says ----------------------------------------------------------------------------------------------


def planned(one: Subject, kind: str) -> Plan:
    """The plan, for the kernels of ``cuda`` or ``cpu``; some seconds of work."""
    return plan_parts(open_parts(one.config), one.clip, device=kind)


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one pass."""

    branch: int
    backbone: int


def operations(one: Subject, kind: str) -> Operations:
    """Counted on the meta device, for the kernels of ``cuda`` or ``cpu``."""
    passes = computations(open_parts(one.without_text_encoder().config), one.clip, "meta")
    return Operations(*(footprint(passes[stage], kind).flops for stage in (Stage.BRANCH, Stage.DENOISING)))


# --- on the device ---------------------------------------------------------------------------------------------------


def parts_on(one: Subject, device: torch.device) -> Parts:
    """The parts with random bfloat16 weights on the device.

    Raises:
        Unfit: they do not fit there.
    """
    if device.type == "cuda":
        meta = open_parts(one.config)
        modules = (meta.text_encoder, meta.transformer, meta.vae, meta.branch)
        wanted = sum(p.nbytes for module in modules if module is not None for p in module.parameters())
        free, _ = torch.cuda.mem_get_info(device)
        if wanted > free:
            raise Unfit(f"{one.name} has {wanted / GIB:.1f} GiB of weights, the card {free / GIB:.1f} GiB free")
    with shortage_named(f"the weights of {one.name}"):
        return open_parts(one.config, device=device)


def pipeline_on(one: Subject, device: torch.device) -> ProPhyPipeline:
    """The pipeline that ``prophy.load`` would open, of random weights on the device, its branch attached.

    Raises:
        Unfit: they do not fit there.
    """
    parts = parts_on(one, device)
    tokenizer = build_tokenizer([PROMPT])
    tokenizer.model_max_length = parts.rules.text_tokens
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    is_flow = one.config.transformer_class.startswith("Wan")
    scheduler = UniPCMultistepScheduler(**flow) if is_flow else CogVideoXDDIMScheduler(prediction_type="v_prediction")
    return parts.backbone.pipeline_class(
        tokenizer=tokenizer,
        text_encoder=parts.text_encoder,
        vae=parts.vae,
        scheduler=scheduler,
        transformer=parts.transformer,
        branch=parts.branch,
        **parts.pipeline_config,
    )
