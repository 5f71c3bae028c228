"""The Wan family: its pipeline, and how a ``WanTransformer3DModel`` is described, copied and called.

Shapes: B batch, C latent channels, T latent frames, H height, W width, N tokens, D width, L text length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import (
    WanRotaryPosEmbed,
    WanTimeTextImageEmbedding,
    WanTransformerBlock,
)
from torch import nn
from transformers import PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from prophy import catalogue
from prophy.backbones.backbone import StepInputs
from prophy.backbones.pipeline import ProPhyPipeline
from prophy.branch import ProPhyBranch
from prophy.branch.family import BlockInputs
from prophy.catalogue.limits import ClipRules, ClipSize

_DESCRIBED = (
    "patch_size",
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "text_dim",
    "freq_dim",
    "ffn_dim",
    "num_layers",
    "cross_attn_norm",
    "qk_norm",
    "eps",
    "rope_max_seq_len",
)


class ProPhyWanPipeline(ProPhyPipeline, WanPipeline):
    """A stock ``WanPipeline`` with a physical branch beside its transformer, or beside both of Wan2.2 A14B's.

    Attributes:
        attachment: :class:`~prophy.branch.attach.Attachment`: observe, steer, switch off. ``None`` without a branch.

    Raises:
        ValueError: the branch belongs to another transformer.
    """

    _optional_components: ClassVar[list[str]] = [*WanPipeline._optional_components, "branch"]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: UMT5EncoderModel,
        vae: AutoencoderKLWan,
        scheduler: UniPCMultistepScheduler,
        transformer: WanTransformer3DModel | None = None,
        transformer_2: WanTransformer3DModel | None = None,
        branch: ProPhyBranch | None = None,
        boundary_ratio: float | None = None,
        expand_timesteps: bool = False,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            scheduler=scheduler,
            transformer=transformer,
            transformer_2=transformer_2,
            boundary_ratio=boundary_ratio,
            expand_timesteps=expand_timesteps,
        )
        self.add_branch(branch)


class PlainAttention:
    """Drop-in for ``WanAttnProcessor`` without image conditioning or masks, as plain matrix products.

    At a few hundred tokens the backward pass of a CPU's fused kernel takes twice as long, and the stock rotary
    embedding writes strided halves. It holds all weights of an attention at once: not for long clips.
    """

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(context)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(context).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        if rotary_emb is not None:
            query, key = _rotate(query, *rotary_emb), _rotate(key, *rotary_emb)
        query, key = query.transpose(1, 2) * query.shape[-1] ** -0.5, key.transpose(1, 2)
        weights = (query.type_as(value) @ key.type_as(value).transpose(-1, -2)).softmax(-1)
        mixed = (weights.type_as(value) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](mixed))


def _rotate(x_BNHD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding; the swap of each pair is a product with a signed permutation."""
    size = x_BNHD.shape[-1]
    even = torch.arange(0, size, 2, device=x_BNHD.device)
    swap = torch.zeros(size, size, dtype=x_BNHD.dtype, device=x_BNHD.device)
    swap[even + 1, even], swap[even, even + 1] = -1.0, 1.0
    return x_BNHD * cos.to(x_BNHD.dtype) + (x_BNHD @ swap) * sin.to(x_BNHD.dtype)


class WanFamily:
    """Wan2.1 and Wan2.2 text-to-video transformers of any size."""

    facts = catalogue.WAN
    name = facts.transformer_class
    transformer_class = WanTransformer3DModel
    stock_pipeline_class = WanPipeline
    pipeline_class = ProPhyWanPipeline
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")
    passes_together = False
    plain_attention = PlainAttention

    def describe(self, transformer: nn.Module) -> dict:
        config = transformer.config
        widened = config.in_channels != (config.out_channels or config.in_channels)  # how Wan2.2 takes its image
        if widened or config.image_dim is not None or config.added_kv_proj_dim is not None:
            raise ValueError("this is an image-to-video Wan: ProPhy attaches to text-to-video models")
        described = {key: config[key] for key in _DESCRIBED}
        return {**described, "patch_size": list(described["patch_size"])}

    def width(self, config: dict) -> int:
        return config["num_attention_heads"] * config["attention_head_dim"]

    def channels(self, config: dict) -> int:
        return config["in_channels"]

    def text_dim(self, config: dict) -> int:
        return config["text_dim"]

    def num_blocks(self, config: dict) -> int:
        return config["num_layers"]

    def blocks(self, transformer: nn.Module) -> nn.ModuleList:
        return transformer.blocks

    def cross_attentions(self, transformer: nn.Module) -> list[nn.Module]:
        """Where video tokens attend to the prompt, a layer for each block."""
        return [block.attn2 for block in transformer.blocks]

    def self_attentions(self, transformer: nn.Module) -> list[nn.Module]:
        """Where video tokens attend to each other, a layer for each block."""
        return [block.attn1 for block in transformer.blocks]

    def positions(self, args: tuple, kwargs: dict) -> tuple[torch.Tensor, ...] | None:
        """The rotary positions that a layer of :meth:`self_attentions` is called with, each ``(N, 1, D)``."""
        rotary = kwargs["rotary_emb"] if "rotary_emb" in kwargs else args[3] if len(args) > 3 else None
        return None if rotary is None else tuple(part[0] for part in rotary)

    def rotated(self, x_NHD: torch.Tensor, cos_N1D: torch.Tensor, sin_N1D: torch.Tensor) -> torch.Tensor:
        """Queries or keys with their positions, as the stock attention processor makes them."""
        even, odd = x_NHD.unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = cos_N1D[..., 0::2], sin_N1D[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).type_as(x_NHD)

    def build_embedders(self, config: dict) -> nn.ModuleDict:
        patch, width = tuple(config["patch_size"]), self.width(config)
        return nn.ModuleDict(
            {
                "rope": WanRotaryPosEmbed(config["attention_head_dim"], patch, config["rope_max_seq_len"]),
                "patch_embedding": nn.Conv3d(config["in_channels"], width, kernel_size=patch, stride=patch),
                "condition_embedder": WanTimeTextImageEmbedding(
                    dim=width,
                    time_freq_dim=config["freq_dim"],
                    time_proj_dim=6 * width,
                    text_embed_dim=config["text_dim"],
                ),
            }
        )

    def build_block(self, config: dict) -> nn.Module:
        return WanTransformerBlock(
            self.width(config),
            config["ffn_dim"],
            config["num_attention_heads"],
            config["qk_norm"],
            config["cross_attn_norm"],
            config["eps"],
            None,
        )

    def copy_embedders(self, transformer: nn.Module, embedders: nn.ModuleDict) -> None:
        for name, module in embedders.items():
            module.load_state_dict(getattr(transformer, name).state_dict())

    def embed(
        self, embedders: nn.ModuleDict, latents_BCTHW: torch.Tensor, timestep: torch.Tensor, text_BLD: torch.Tensor
    ) -> BlockInputs:
        rotary = embedders["rope"](latents_BCTHW)
        hidden_BND = embedders["patch_embedding"](latents_BCTHW).flatten(2).transpose(1, 2).contiguous()
        length = timestep.shape[1] if timestep.ndim == 2 else None  # Wan2.2 TI2V: one timestep a token
        _, projected, context, _ = embedders["condition_embedder"](
            timestep.flatten(), text_BLD, timestep_seq_len=length
        )
        modulation = projected.unflatten(-1, (6, -1))
        return BlockInputs(hidden_BND, (context, modulation, rotary))

    def run_block(self, block: nn.Module, hidden_BND: torch.Tensor, inputs: BlockInputs) -> torch.Tensor:
        return block(hidden_BND, *inputs.conditioning)

    def run_refined_block(
        self,
        block: nn.Module,
        hidden_BND: torch.Tensor,
        inputs: BlockInputs,
        refine: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """The block with ``refine`` between cross-attention and feed-forward.

        The stock block has no seam there, so its three parts are called one by one; a test keeps this equal to the
        stock forward when ``refine`` does nothing.
        """
        modulation: torch.Tensor
        context, modulation, rotary = inputs.conditioning
        axis = modulation.ndim - 2  # 2 with one timestep a token, else 1
        table = block.scale_shift_table if modulation.ndim == 3 else block.scale_shift_table.unsqueeze(0)
        parts = (table + modulation.float()).chunk(6, dim=axis)
        shift, scale, gate, ff_shift, ff_scale, ff_gate = (p.squeeze(2) if modulation.ndim == 4 else p for p in parts)

        normal = (block.norm1(hidden_BND.float()) * (1 + scale) + shift).type_as(hidden_BND)
        hidden_BND = (hidden_BND.float() + block.attn1(normal, None, None, rotary) * gate).type_as(hidden_BND)

        normal = block.norm2(hidden_BND.float()).type_as(hidden_BND)
        hidden_BND = hidden_BND + block.attn2(normal, context, None, None)

        hidden_BND = refine(hidden_BND)

        normal = (block.norm3(hidden_BND.float()) * (1 + ff_scale) + ff_shift).type_as(hidden_BND)
        return (hidden_BND.float() + block.ffn(normal).float() * ff_gate).type_as(hidden_BND)

    def video_tokens(self, hidden_BND: torch.Tensor) -> torch.Tensor:
        return hidden_BND

    def add_residual(self, output: torch.Tensor, residual_BND: torch.Tensor) -> torch.Tensor:
        return output + residual_BND.to(output.dtype)

    def run_transformer(
        self, transformer: nn.Module, latents_BCTHW: torch.Tensor, timestep: torch.Tensor, text_BLD: torch.Tensor
    ) -> torch.Tensor:
        return transformer(latents_BCTHW, timestep, text_BLD, return_dict=False)[0]

    def call_arguments(self, args: tuple, kwargs: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        names = ("hidden_states", "timestep", "encoder_hidden_states")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return given[names[0]], given[names[1]], given[names[2]]

    def from_scratch(
        self,
        autoencoder: Mapping[str, Any],
        text_encoder: UMT5Config,
        *,
        width: int,
        heads: int,
        layers: int,
        patch: tuple[int, int, int],
    ) -> WanTransformer3DModel:
        """A small stock transformer that starts as the identity: every residual and the output begin at zero.

        Args:
            autoencoder: configuration of the model's own.
            text_encoder: configuration of the model's own.
            width, heads, layers, patch: see :class:`prophy.training.recipe.BackboneShape`.
        """
        transformer = WanTransformer3DModel(
            patch_size=tuple(patch),
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            in_channels=autoencoder["z_dim"],
            out_channels=autoencoder["z_dim"],
            text_dim=text_encoder.d_model,
            freq_dim=128,
            ffn_dim=4 * width,
            num_layers=layers,
            rope_max_seq_len=64,
        )
        with torch.no_grad():
            for block in transformer.blocks:
                block.scale_shift_table.zero_()
                block.scale_shift_table[:, [2, 5]] = 1.0  # the two gates
                for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
                    layer.weight.zero_()
                    layer.bias.zero_()
            transformer.condition_embedder.time_proj.weight.mul_(0.1)
            transformer.proj_out.weight.zero_()
            transformer.proj_out.bias.zero_()
        return transformer

    def step_inputs(
        self,
        transformer: nn.Module,
        rules: ClipRules,
        clip: ClipSize,
        pipeline_config: Mapping[str, Any],
        device: torch.device | str,
    ) -> StepInputs:
        shape = rules.denoised_shape(clip)
        zeros = partial(torch.zeros, dtype=transformer.dtype, device=device)
        text = 1, rules.text_tokens, self.text_dim(transformer.config)
        tokens = rules.grid(clip.frames, clip.height, clip.width).num_tokens
        arguments = {
            "hidden_states": zeros(1, *shape),
            # Wan2.2 TI2V: one timestep a token
            "timestep": zeros((1, tokens) if pipeline_config.get("expand_timesteps") else 1, dtype=torch.float32),
            "encoder_hidden_states": zeros(text),
        }
        # the latent and the last two predictions of the scheduler, the other prompt
        return StepInputs(arguments, [zeros(4, *shape, dtype=torch.float32), zeros(text)])


WAN = WanFamily()
