"""The stages of one generation as separate computations: the parts of a pipeline, and what each of them is given.

They run on any device: on ``meta`` to count (``prophy.memory.plan``), on a real one to measure
(``benchmarks/plan.py``). Between stages, only what the stock pipelines hold at that time is alive.

Shapes: B batch, C latent channels, T latent frames, h and w latent rows and columns, L text length, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
import transformers
from diffusers import CogVideoXPipeline, DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from diffusers.video_processor import VideoProcessor
from torch import nn

import prophy.backbones  # noqa: F401  registers the families
from prophy.branch import ProPhyBranch, inject
from prophy.branch.family import family_of
from prophy.catalogue.describe import Description, describe_model
from prophy.catalogue.limits import WAN, Clip, ClipRules, Recommended
from prophy.catalogue.published import PublishedModel, published_like
from prophy.memory.profiles import Stage

_EVERY = 5  # blocks between two Physical Blocks of a branch of our default shape


@dataclass(frozen=True)
class Parts:
    """The parts of a pipeline, on one device.

    Attributes:
        name: of the model.
        text_encoder: from token ids to text embeddings.
        transformer: the backbone.
        transformers: how many of them there are, one after the other along the noise.
        vae: the autoencoder.
        branch: the physical branch, if there is one.
        rules: what it asks of a clip.
        steps: denoising steps, as recommended.
        expand_timesteps: whether every token has its own timestep.
    """

    name: str
    text_encoder: nn.Module
    transformer: nn.Module
    transformers: int
    vae: nn.Module
    branch: ProPhyBranch | None
    rules: ClipRules
    steps: int
    expand_timesteps: bool = False

    @property
    def is_wan(self) -> bool:
        return type(self.transformer).__name__ == WAN


# --- opening without weights -----------------------------------------------------------------------------------------


def open_parts(
    model: str | Path | Description,
    branch: str | Path | None = None,
    dtype: torch.dtype = torch.bfloat16,
    with_branch: bool = True,
) -> Parts:
    """Build the parts of a model on the meta device, from its configurations alone.

    Args:
        model: as :func:`prophy.catalogue.describe.describe_model` takes it, or what that gave.
        branch: a branch's folder or hub id; default: the model's own, else one of our default shape.
        dtype: of the weights; what the classes keep in float32 stays there.
        with_branch: False leaves the branch out.

    Raises:
        ValueError: no such model, or configurations that do not fit. One line.
    """
    known = model if isinstance(model, Description) else describe_model(model, branch)
    transformer = _build(diffusers, known.transformer_class, known.transformer, dtype)
    physics = _branch_beside(transformer, known.branch, dtype) if with_branch else None
    return Parts(
        name=known.name,
        text_encoder=_build(transformers, known.text_encoder_class, known.text_encoder, dtype),
        transformer=transformer,
        transformers=known.transformers,
        vae=_build(diffusers, known.vae_class, known.vae, dtype),
        branch=physics,
        rules=known.rules,
        steps=(known.recommended or Recommended()).steps,
        expand_timesteps=known.expand_timesteps,
    )


def _branch_beside(transformer: nn.Module, config: Mapping[str, Any] | None, dtype: torch.dtype) -> ProPhyBranch:
    with torch.device("meta"), _quiet():
        if config is None:
            family = family_of(type(transformer).__name__)
            described = family.describe(transformer)
            branch = ProPhyBranch(family.name, described, default_sites(family.num_blocks(described)))
        else:
            branch = ProPhyBranch.from_config(dict(config))
            branch.check_fits(transformer)
    return _cast(branch, dtype)


def parts_of(pipeline: DiffusionPipeline) -> Parts:
    """The parts of an opened Wan or CogVideoX pipeline once more, on the meta device, in its dtypes."""
    known = published_like_pipeline(pipeline)
    return Parts(
        name=known.name if known is not None else type(pipeline).__name__,
        text_encoder=_without_weights(pipeline.text_encoder),
        transformer=_without_weights(transformers_of(pipeline)[0]),
        transformers=len(transformers_of(pipeline)),
        vae=_without_weights(pipeline.vae),
        branch=None if getattr(pipeline, "branch", None) is None else _without_weights(pipeline.branch),
        rules=rules_of(pipeline),
        steps=(Recommended() if known is None else known.recommended).steps,
        expand_timesteps=bool(pipeline.config.get("expand_timesteps")),
    )


def rules_of(pipeline: DiffusionPipeline) -> ClipRules:
    """What an opened Wan or CogVideoX pipeline, with a branch or without, asks of a clip."""
    transformer = transformers_of(pipeline)[0]
    limit = pipeline.tokenizer.model_max_length
    return ClipRules.of(type(transformer).__name__, transformer.config, pipeline.vae.config, limit)


def published_like_pipeline(pipeline: DiffusionPipeline) -> PublishedModel | None:
    """The published model that an opened pipeline has the shape of."""
    first, *others = transformers_of(pipeline)
    return published_like(type(first).__name__, first.config, 1 + len(others))


def transformers_of(pipeline: DiffusionPipeline) -> list[nn.Module]:
    """One, or the two of Wan2.2 A14B."""
    both = (pipeline.transformer, getattr(pipeline, "transformer_2", None))
    return [transformer for transformer in both if transformer is not None]


def _without_weights(module: nn.Module) -> nn.Module:
    with torch.device("meta"), _quiet():
        config = module.config
        empty = type(module).from_config(config) if isinstance(module, diffusers.ModelMixin) else type(module)(config)
    return _cast(empty, module.dtype)


def default_sites(blocks: int) -> list[int]:
    """Blocks with a Physical Block beside them in our default shape: every fifth, and the last."""
    return sorted({*range(0, blocks, _EVERY), blocks - 1})


def _build(library: Any, class_name: str, config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    cls = getattr(library, class_name, None)
    if cls is None:
        raise ValueError(f"this release of {library.__name__} has no {class_name}: update it")
    with torch.device("meta"), _quiet():
        own = library is diffusers
        module = cls.from_config(dict(config)) if own else cls(cls.config_class(**config))
    return _cast(module, dtype)


def _cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The dtypes that ``from_pretrained(dtype=...)`` gives: transformers keeps what it lists for float16 alone."""
    listed = getattr(module, "_keep_in_fp32_modules", None) or ()
    if not isinstance(module, diffusers.ModelMixin) and dtype is not torch.float16:
        listed = ()
    for name, parameter in module.named_parameters():
        kept = any(part in name.split(".") for part in listed)
        parameter.data = parameter.data.to(torch.float32 if kept else dtype)
    return module.eval().requires_grad_(False)


@contextmanager
def _quiet():
    """Without what libraries say about configurations that lack or exceed a default."""
    before = diffusers_logging.get_verbosity(), transformers.logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(before[0])
        transformers.logging.set_verbosity(before[1])


# --- the stages ------------------------------------------------------------------------------------------------------


def computations(parts: Parts, clip: Clip, device: str, tiling: bool = False) -> dict[Stage, Callable[[], Any]]:
    """What each stage computes: one prompt, one branch pass, one backbone pass with its residuals, one decoding.

    Args:
        parts: on ``device``.
        clip: what to make.
        device: where the inputs are made.
        tiling: whether the autoencoder decodes in tiles.

    Raises:
        ValueError: see :meth:`prophy.catalogue.limits.ClipRules.check`.
    """
    shape = parts.rules.latent_shape(clip)
    stages = {
        Stage.TEXT: lambda: _encode(parts, device),
        Stage.BRANCH: lambda: _run_branch(parts, clip, shape, device),
        Stage.DENOISING: lambda: _denoise(parts, clip, shape, device),
        Stage.DECODING: lambda: _decode(parts, shape, device, tiling),
    }
    if parts.branch is None:
        del stages[Stage.BRANCH]
    return stages


def passes(parts: Parts, clip: Clip) -> int:
    """Calls of the transformer in one denoising step: CogVideoX makes both passes in one."""
    return 2 if clip.guided and parts.is_wan else 1


def _encode(parts: Parts, device: str) -> torch.Tensor:
    ids = torch.ones(1, parts.rules.text_tokens, dtype=torch.long, device=device)
    return parts.text_encoder(ids, attention_mask=torch.ones_like(ids)).last_hidden_state


@dataclass
class _Step:
    """What is alive while a step is computed: the transformer's arguments, and what the pipeline keeps besides."""

    arguments: dict[str, torch.Tensor]
    kept: list[torch.Tensor]


def _step(parts: Parts, clip: Clip, shape: tuple[int, int, int, int], device: str) -> _Step:
    dtype = parts.transformer.dtype
    channels, frames, height, width = shape
    text_dim = parts.transformer.config["text_dim" if parts.is_wan else "text_embed_dim"]

    def empty(*size: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype, device=device)

    if parts.is_wan:
        patch = parts.transformer.config.patch_size[1]
        tokens = frames * (height // patch) * (width // patch)
        arguments = {
            "hidden_states": empty(1, *shape),
            "timestep": empty(*((1, tokens) if parts.expand_timesteps else (1,)), dtype=torch.float32),
            "encoder_hidden_states": empty(1, parts.rules.text_tokens, text_dim),
        }
        # the latent and the last two predictions of the scheduler, the other prompt
        kept = [empty(4, *shape, dtype=torch.float32), empty(1, parts.rules.text_tokens, text_dim)]
        return _Step(arguments, kept)
    batch = 2 if clip.guided else 1
    arguments = {
        "hidden_states": empty(batch, frames, channels, height, width),
        "timestep": empty(batch, dtype=torch.float32),
        "encoder_hidden_states": empty(batch, parts.rules.text_tokens, text_dim),
    }
    if parts.transformer.config.use_rotary_positional_embeddings:
        pipeline = SimpleNamespace(transformer=parts.transformer, vae_scale_factor_spatial=1)
        arguments["image_rotary_emb"] = CogVideoXPipeline._prepare_rotary_positional_embeddings(
            pipeline, height, width, frames, torch.device(device)
        )
    return _Step(arguments, [empty(3, *shape)])


def _run_branch(parts: Parts, clip: Clip, shape: tuple[int, int, int, int], device: str) -> Any:
    step = _step(parts, clip, shape, device)
    return parts.branch(*parts.branch.family.call_arguments((), step.arguments))


def _denoise(parts: Parts, clip: Clip, shape: tuple[int, int, int, int], device: str) -> Any:
    """One pass of the backbone, while the branch's residuals wait for their blocks."""
    step = _step(parts, clip, shape, device)
    if parts.branch is None:
        injected = nullcontext()
    else:
        sizes = step.arguments["hidden_states"].shape
        config = parts.transformer.config
        patch = config.patch_size[1] if parts.is_wan else config.patch_size
        tokens = shape[1] * (shape[2] // patch) * (shape[3] // patch)
        width = config.num_attention_heads * config.attention_head_dim
        residuals = [
            torch.zeros(sizes[0], tokens, width, dtype=parts.transformer.dtype, device=device)
            for _ in parts.branch.injections
        ]
        injected = inject(parts.transformer, parts.branch, residuals)
    with injected:
        return parts.transformer(**step.arguments, return_dict=False)[0]


def _decode(parts: Parts, shape: tuple[int, int, int, int], device: str, tiling: bool) -> torch.Tensor:
    vae = parts.vae
    vae.use_tiling = tiling
    latents_BCThw = torch.zeros(1, *shape, dtype=vae.dtype, device=device)
    video = vae.decode(latents_BCThw, return_dict=False)[0]
    return VideoProcessor().postprocess_video(video, output_type="pt")
