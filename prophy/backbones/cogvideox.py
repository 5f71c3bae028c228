"""The CogVideoX family: its pipeline, and how a ``CogVideoXTransformer3DModel`` is described, copied and called.

Video and text tokens attend to each other and both are updated, so between blocks travels a pair (video, text), as the
stock blocks return it; experts and residuals act on the video tokens only. The semantic router reads all of the
prompt's rows: unlike Wan's, CogVideoX's pipeline does not clear the padding, which its text encoder fills with values.

Shapes: B batch, C latent channels, T latent frames, H height, W width, N video tokens, D width, L text length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from diffusers.models.embeddings import (
    CogVideoXPatchEmbed,
    TimestepEmbedding,
    Timesteps,
    get_3d_rotary_pos_embed,
)
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import nn
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from prophy import catalogue
from prophy.backbones.backbone import StepInputs
from prophy.backbones.pipeline import ProPhyPipeline
from prophy.branch import ProPhyBranch
from prophy.branch.family import BlockInputs
from prophy.catalogue.limits import ClipRules, ClipSize

_DESCRIBED = (
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "flip_sin_to_cos",
    "freq_shift",
    "time_embed_dim",
    "text_embed_dim",
    "num_layers",
    "dropout",
    "attention_bias",
    "sample_width",
    "sample_height",
    "sample_frames",
    "patch_size",
    "temporal_compression_ratio",
    "max_text_seq_length",
    "activation_fn",
    "timestep_activation_fn",
    "norm_elementwise_affine",
    "norm_eps",
    "spatial_interpolation_scale",
    "temporal_interpolation_scale",
    "use_rotary_positional_embeddings",
    "use_learned_positional_embeddings",
    "patch_bias",
)


class ProPhyCogVideoXPipeline(ProPhyPipeline, CogVideoXPipeline):
    """A stock ``CogVideoXPipeline`` with a physical branch beside its transformer.

    Attributes:
        attachment: :class:`~prophy.branch.attach.Attachment`: observe, steer, switch off. ``None`` without a branch.

    Raises:
        ValueError: the branch belongs to another transformer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: T5EncoderModel,
        vae: AutoencoderKLCogVideoX,
        transformer: CogVideoXTransformer3DModel,
        scheduler: CogVideoXDDIMScheduler | CogVideoXDPMScheduler,
        branch: ProPhyBranch | None = None,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
        )
        self.add_branch(branch)


class CogVideoXFamily:
    """CogVideoX text-to-video transformers: 2B (positions added to the tokens) and 5B (rotary positions)."""

    facts = catalogue.COGVIDEOX
    name = facts.transformer_class
    transformer_class = CogVideoXTransformer3DModel
    stock_pipeline_class = CogVideoXPipeline
    pipeline_class = ProPhyCogVideoXPipeline
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")
    passes_together = True

    def describe(self, transformer: nn.Module) -> dict:
        config = transformer.config
        if config.in_channels != (config.out_channels or config.in_channels) or config.ofs_embed_dim is not None:
            raise ValueError("this is an image-to-video CogVideoX: ProPhy attaches to text-to-video models")
        if config.patch_size_t is not None:
            # its tokens span two latent frames, padded in front: no token grid says where such a token is in the video
            raise ValueError("this is CogVideoX 1.5, whose tokens span two latent frames: use CogVideoX 2B or 5B")
        return {key: config[key] for key in _DESCRIBED}

    def width(self, config: dict) -> int:
        return config["num_attention_heads"] * config["attention_head_dim"]

    def channels(self, config: dict) -> int:
        return config["in_channels"]

    def text_dim(self, config: dict) -> int:
        return config["text_embed_dim"]

    def num_blocks(self, config: dict) -> int:
        return config["num_layers"]

    def blocks(self, transformer: nn.Module) -> nn.ModuleList:
        return transformer.transformer_blocks

    def build_embedders(self, config: dict) -> nn.ModuleDict:
        width, rotary = self.width(config), config["use_rotary_positional_embeddings"]
        embedders = {
            "patch_embed": CogVideoXPatchEmbed(
                patch_size=config["patch_size"],
                in_channels=config["in_channels"],
                embed_dim=width,
                text_embed_dim=config["text_embed_dim"],
                bias=config["patch_bias"],
                sample_width=config["sample_width"],
                sample_height=config["sample_height"],
                sample_frames=config["sample_frames"],
                temporal_compression_ratio=config["temporal_compression_ratio"],
                max_text_seq_length=config["max_text_seq_length"],
                spatial_interpolation_scale=config["spatial_interpolation_scale"],
                temporal_interpolation_scale=config["temporal_interpolation_scale"],
                use_positional_embeddings=not rotary,
                use_learned_positional_embeddings=config["use_learned_positional_embeddings"],
            ),
            "time_proj": Timesteps(width, config["flip_sin_to_cos"], config["freq_shift"]),
            "time_embedding": TimestepEmbedding(width, config["time_embed_dim"], config["timestep_activation_fn"]),
        }
        if rotary:
            embedders["rope"] = _RotaryPositions(config)
        return nn.ModuleDict(embedders)

    def build_block(self, config: dict) -> nn.Module:
        return CogVideoXBlock(
            dim=self.width(config),
            num_attention_heads=config["num_attention_heads"],
            attention_head_dim=config["attention_head_dim"],
            time_embed_dim=config["time_embed_dim"],
            dropout=config["dropout"],
            activation_fn=config["activation_fn"],
            attention_bias=config["attention_bias"],
            norm_elementwise_affine=config["norm_elementwise_affine"],
            norm_eps=config["norm_eps"],
        )

    def copy_embedders(self, transformer: nn.Module, embedders: nn.ModuleDict) -> None:
        for name, module in embedders.items():
            if name != "rope":  # the pipeline's part, without weights
                module.load_state_dict(getattr(transformer, name).state_dict())

    def embed(
        self, embedders: nn.ModuleDict, latents_BCTHW: torch.Tensor, timestep: torch.Tensor, text_BLD: torch.Tensor
    ) -> BlockInputs:
        time = embedders["time_embedding"](embedders["time_proj"](timestep).to(latents_BCTHW.dtype))
        joint = embedders["patch_embed"](text_BLD, latents_BCTHW.transpose(1, 2))
        length = text_BLD.shape[1]
        rotary = embedders["rope"](latents_BCTHW) if "rope" in embedders else None
        return BlockInputs((joint[:, length:], joint[:, :length]), (time, rotary))

    def run_block(
        self, block: nn.Module, hidden: tuple[torch.Tensor, torch.Tensor], inputs: BlockInputs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return block(*hidden, *inputs.conditioning)

    def run_refined_block(
        self,
        block: nn.Module,
        hidden: tuple[torch.Tensor, torch.Tensor],
        inputs: BlockInputs,
        refine: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The block with ``refine`` on the video tokens, between joint attention and feed-forward.

        The stock block has no seam there, so its two parts are called one by one; a test keeps this equal to the stock
        forward when ``refine`` does nothing.
        """
        (video, text), (time, rotary) = hidden, inputs.conditioning
        length = text.shape[1]

        normal, normal_text, gate, text_gate = block.norm1(video, text, time)
        attended, attended_text = block.attn1(
            hidden_states=normal, encoder_hidden_states=normal_text, image_rotary_emb=rotary
        )
        video, text = video + gate * attended, text + text_gate * attended_text

        video = refine(video)

        normal, normal_text, gate, text_gate = block.norm2(video, text, time)
        fed = block.ff(torch.cat([normal_text, normal], dim=1))
        return video + gate * fed[:, length:], text + text_gate * fed[:, :length]

    def video_tokens(self, hidden: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return hidden[0]

    def add_residual(
        self, output: tuple[torch.Tensor, torch.Tensor], residual_BND: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        video, text = output
        return video + residual_BND.to(video.dtype), text

    def run_transformer(
        self, transformer: nn.Module, latents_BCTHW: torch.Tensor, timestep: torch.Tensor, text_BLD: torch.Tensor
    ) -> torch.Tensor:
        config = transformer.config
        rotary = _RotaryPositions(config)(latents_BCTHW) if config.use_rotary_positional_embeddings else None
        latents_BTCHW = latents_BCTHW.transpose(1, 2)
        predicted = transformer(latents_BTCHW, text_BLD, timestep, image_rotary_emb=rotary, return_dict=False)[0]
        return predicted.transpose(1, 2)

    def call_arguments(self, args: tuple, kwargs: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        names = ("hidden_states", "encoder_hidden_states", "timestep")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return given["hidden_states"].transpose(1, 2), given["timestep"], given["encoder_hidden_states"]

    def step_inputs(
        self,
        transformer: nn.Module,
        rules: ClipRules,
        clip: ClipSize,
        pipeline_config: Mapping[str, Any],
        device: torch.device | str,
    ) -> StepInputs:
        channels, frames, height, width = shape = rules.denoised_shape(clip)
        zeros = partial(torch.zeros, dtype=transformer.dtype, device=device)
        batch = 2 if clip.guided else 1
        arguments = {
            "hidden_states": zeros(batch, frames, channels, height, width),
            "timestep": zeros(batch, dtype=torch.float32),
            "encoder_hidden_states": zeros(batch, rules.text_tokens, self.text_dim(transformer.config)),
        }
        if transformer.config.use_rotary_positional_embeddings:
            in_cells = SimpleNamespace(transformer=transformer, vae_scale_factor_spatial=1)
            arguments["image_rotary_emb"] = CogVideoXPipeline._prepare_rotary_positional_embeddings(
                in_cells, height, width, frames, torch.device(device)
            )
        return StepInputs(arguments, [zeros(3, *shape)])


class _RotaryPositions(nn.Module):
    """Rotary positions of a clip, computed from its size as ``CogVideoXPipeline`` does.

    The pipeline hands them to its transformer. That they follow from the latent's shape keeps the branch's own
    arguments the same for every family; a test compares the two.
    """

    def __init__(self, config: dict) -> None:
        super().__init__()
        self._patch, self._head_dim = config["patch_size"], config["attention_head_dim"]
        self._base = config["sample_height"] // self._patch, config["sample_width"] // self._patch

    def forward(self, latents_BCTHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames, height, width = latents_BCTHW.shape[2:]
        grid = height // self._patch, width // self._patch
        base_height, base_width = self._base
        return get_3d_rotary_pos_embed(
            embed_dim=self._head_dim,
            crops_coords=get_resize_crop_region_for_grid(grid, base_width, base_height),
            grid_size=grid,
            temporal_size=frames,
            device=latents_BCTHW.device,
        )


COGVIDEOX = CogVideoXFamily()
