"""The stages of one generation as separate computations: the parts of a pipeline, and what each of them is given.

They run on any device: on ``meta`` to count (``prophy.memory.plan``), on a real one to measure
(``benchmarks/plan.py``). Between stages, only what the stock pipelines hold at that time is alive.

Shapes: B batch, C latent channels, T latent frames, h and w latent rows and columns, L text length, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from diffusers.video_processor import VideoProcessor
from torch import nn

from prophy.backbones import Backbone, StepInputs, backbone_of
from prophy.backbones.pipeline import pipeline_config_of, published_like_pipeline, rules_of, transformers_of
from prophy.branch import ProPhyBranch, inject
from prophy.branch.family import default_sites
from prophy.catalogue.describe import ModelConfig, describe_model
from prophy.catalogue.limits import ClipRules, ClipSize, GenerationDefaults
from prophy.memory.profiles import Stage


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
        pipeline_config: settings of the pipeline besides its parts.
    """

    name: str
    text_encoder: nn.Module
    transformer: nn.Module
    transformers: int
    vae: nn.Module
    branch: ProPhyBranch | None
    rules: ClipRules
    steps: int
    pipeline_config: Mapping[str, Any]

    @property
    def backbone(self) -> Backbone:
        """The family of the transformer."""
        return backbone_of(self.transformer)


# --- opening without weights -----------------------------------------------------------------------------------------


def open_parts(
    model: str | Path | ModelConfig,
    branch: str | Path | Literal[False] | None = None,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "meta",
) -> Parts:
    """Build the parts of a model from its configurations alone: on the meta device, or with random weights.

    Args:
        model: as :func:`prophy.catalogue.describe.describe_model` takes it, or what that gave.
        branch: a branch's folder or hub id; default: the model's own, else one of our default shape. False leaves the
            branch out.
        dtype: of the weights; what the classes keep in float32 stays there.
        device: where they are made; on any but meta with the random values that training from nothing starts from, in
            ``dtype`` at once, so that no larger copy ever exists.

    Raises:
        ValueError: no such model, or configurations that do not fit. One line.
    """
    known = model if isinstance(model, ModelConfig) else describe_model(model, branch or None)
    transformer = _build(backbone_of(known.transformer_class).transformer_class, known.transformer, dtype, device)
    physics = _branch_beside(transformer, known.branch, dtype, device) if branch is not False else None
    return Parts(
        name=known.name,
        text_encoder=_build(_class_in(transformers, known.text_encoder_class), known.text_encoder, dtype, device),
        transformer=transformer,
        transformers=known.transformers,
        vae=_build(_class_in(diffusers, known.vae_class), known.vae, dtype, device),
        branch=physics,
        rules=known.rules,
        steps=(known.defaults or GenerationDefaults()).steps,
        pipeline_config=known.pipeline_config,
    )


def _branch_beside(
    transformer: nn.Module, config: Mapping[str, Any] | None, dtype: torch.dtype, device: torch.device | str
) -> ProPhyBranch:
    with _made_on(device, dtype):
        if config is None:
            family = backbone_of(transformer)
            described = family.describe(transformer)
            branch = ProPhyBranch(family.name, described, default_sites(family.num_blocks(described)))
        else:
            branch = ProPhyBranch.from_config(dict(config))
            branch.check_fits(transformer)
    return _cast(branch, dtype)


def parts_of(pipeline: DiffusionPipeline) -> Parts:
    """The parts of an opened pipeline once more, on the meta device, in its dtypes."""
    known = published_like_pipeline(pipeline)
    return Parts(
        name=known.name if known is not None else type(pipeline).__name__,
        text_encoder=_without_weights(pipeline.text_encoder),
        transformer=_without_weights(transformers_of(pipeline)[0]),
        transformers=len(transformers_of(pipeline)),
        vae=_without_weights(pipeline.vae),
        branch=None if getattr(pipeline, "branch", None) is None else _without_weights(pipeline.branch),
        rules=rules_of(pipeline),
        steps=(GenerationDefaults() if known is None else known.defaults).steps,
        pipeline_config=pipeline_config_of(pipeline),
    )


def _without_weights(module: nn.Module) -> nn.Module:
    config = module.config
    if isinstance(module, diffusers.ModelMixin):
        # diffusers notes arguments that were given by position as left out, and would leave them out again
        config = {key: value for key, value in config.items() if not key.startswith("_")}
        return _build(type(module), config, module.dtype)
    with _made_on("meta", module.dtype):
        return _cast(type(module)(config), module.dtype)


def _class_in(library: Any, name: str) -> type[nn.Module]:
    cls = getattr(library, name, None)
    if cls is None:
        raise ValueError(f"this release of {library.__name__} has no {name}: update it")
    return cls


def _build(
    cls: type[nn.Module], config: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str = "meta"
) -> nn.Module:
    try:
        with _made_on(device, dtype):
            own = issubclass(cls, diffusers.ModelMixin)
            module = cls.from_config(dict(config)) if own else cls(cls.config_class(**config))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a class makes of values that it cannot have
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"no {cls.__name__} can be built as its config.json says ({said}): copy it again") from error
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
def _made_on(device: torch.device | str, dtype: torch.dtype) -> Iterator[None]:
    """Inside, modules are made on a device; on a real one in ``dtype``, as ``from_pretrained`` makes them."""
    before = torch.get_default_dtype()
    if torch.device(device).type != "meta":  # where a cast costs nothing
        torch.set_default_dtype(dtype)
    try:
        with torch.device(device), _quiet():
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _quiet() -> Iterator[None]:
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


def computations(parts: Parts, clip: ClipSize, device: str, tiling: bool = False) -> dict[Stage, Callable[[], Any]]:
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
    stages: dict[Stage, Callable[[], Any]] = {Stage.TEXT: lambda: _encode(parts, device)}
    if parts.branch is not None:
        stages[Stage.BRANCH] = partial(_run_branch, parts.branch, parts, clip, device)
    stages[Stage.DENOISING] = lambda: _denoise(parts, clip, device)
    stages[Stage.DECODING] = lambda: _decode(parts, shape, device, tiling)
    return stages


def passes(parts: Parts, clip: ClipSize) -> int:
    """Calls of the transformer in one denoising step."""
    return 2 if clip.guided and not parts.backbone.passes_together else 1


def _encode(parts: Parts, device: str) -> torch.Tensor:
    ids = torch.ones(1, parts.rules.text_tokens, dtype=torch.long, device=device)
    return parts.text_encoder(ids, attention_mask=torch.ones_like(ids)).last_hidden_state


def _step(parts: Parts, clip: ClipSize, device: str) -> StepInputs:
    return parts.backbone.step_inputs(parts.transformer, parts.rules, clip, parts.pipeline_config, device)


def _run_branch(branch: ProPhyBranch, parts: Parts, clip: ClipSize, device: str) -> Any:
    step = _step(parts, clip, device)
    return branch(*parts.backbone.call_arguments((), step.arguments))


def _denoise(parts: Parts, clip: ClipSize, device: str) -> Any:
    """One pass of the backbone, while the branch's residuals wait for their blocks."""
    step = _step(parts, clip, device)
    injected: AbstractContextManager[None] = nullcontext()
    if parts.branch is not None:
        latents_BCTHW, *_ = parts.backbone.call_arguments((), step.arguments)
        tokens = parts.rules.grid(clip.frames, clip.height, clip.width).num_tokens
        shape = len(latents_BCTHW), tokens, parts.backbone.width(parts.transformer.config)
        dtype = parts.transformer.dtype
        residuals = [torch.zeros(shape, dtype=dtype, device=device) for _ in parts.branch.injections]
        injected = inject(parts.transformer, parts.branch, residuals)
    with injected:
        return parts.transformer(**step.arguments, return_dict=False)[0]


def _decode(parts: Parts, shape: tuple[int, int, int, int], device: str, tiling: bool) -> torch.Tensor:
    vae = parts.vae
    vae.use_tiling = tiling
    latents_BCThw = torch.zeros(1, *shape, dtype=vae.dtype, device=device)
    video = vae.decode(latents_BCThw, return_dict=False)[0]
    return VideoProcessor().postprocess_video(video, output_type="pt")
