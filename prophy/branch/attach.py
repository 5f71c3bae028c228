"""Residual injection: the branch beside a stock, unmodified transformer.

``attach`` hooks a transformer so that each of its forward passes first runs the branch, then adds residual i after
block i. Two transformers that take turns along the noise, as Wan2.2's, share one branch and one attachment: the branch
reads the noisy latent, never hidden states. The hooks are diffusers' own and sit *inside* those of its caches and
offloading, so a skipped or moved block keeps its residual exactly once; attaching in any other order is refused.

Shapes: B batch, C latent channels, T latent frames, H height, W width, N tokens, D width, L text length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ContextParallelConfig
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.context_parallel import EquipartitionSharder, PartitionAnythingSharder
from diffusers.hooks.hooks import StateManager
from torch import nn

from prophy.branch.model import ProPhyBranch
from prophy.routing.schedule import Schedule
from prophy.routing.trace import Routing

_NAME = "prophy"
_TIMESTEPS = 1000  # that the backbones of both families are trained with

Observer = Callable[[float, Routing], None]


class _Residuals:
    """The residuals of the forward pass under way; block hooks take theirs from here."""

    def __init__(self) -> None:
        self.current: list[torch.Tensor] | None = None


class _Hook(ModelHook):
    def __deepcopy__(self, memo: dict) -> _Hook:
        # a copied module keeps the original's forward, so the copy would run the original's weights, silently
        raise RuntimeError("a branch is attached: call its detach(), copy the transformer, then attach again")


class _AddResidual(_Hook):
    """After a block: add the residual of its site."""

    def __init__(self, residuals: _Residuals, index: int, add: Callable) -> None:
        super().__init__()
        self._residuals, self._index, self._add = residuals, index, add

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        if self._residuals.current is None:
            return output
        return self._add(output, self._residuals.current[self._index])


class _RunBranch(_Hook):
    """Before the transformer: run the branch. Its state manager tells the conditional pass from the unconditional."""

    _is_stateful = True

    def __init__(self, attachment: Attachment) -> None:
        super().__init__()
        self._attachment = attachment
        self._context = StateManager(object)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple, dict]:
        context = self._context._context
        self._attachment._run(module, args, kwargs, None if context is None else context.name)
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        self._attachment._residuals.current = None  # as large as a block's own tensors: not to be held while decoding
        return output

    def reset_state(self, module: nn.Module) -> nn.Module:
        self._context.reset()
        return module


class Attachment:
    """A branch attached to one or more transformers. Made by :func:`attach`.

    Attributes:
        enabled: False leaves the backbone alone.
        schedule: when the branch runs; at first in every pass. :func:`prophy.generation.generate.generate` takes its
            settings'.
    """

    def __init__(self, transformers: tuple[nn.Module, ...], branch: ProPhyBranch) -> None:
        self.enabled = True
        self.schedule = Schedule()
        self._transformers, self._branch = transformers, branch
        self._residuals = _Residuals()
        self._observer: Observer | None = None
        self._steering: tuple[torch.Tensor | None, ...] = (None, None, None)  # as the branch's forward takes them
        self._strength = 1.0

    @contextmanager
    def observe(self, observer: Observer) -> Iterator[None]:
        """Call ``observer(timestep, routing)`` for every conditional pass inside the block.

        Where a pipeline makes both passes in one call, as CogVideoX's, the routing holds both: the unconditional rows
        come first, so that of one video the last row is always the conditional one.
        """
        previous, self._observer = self._observer, observer
        try:
            yield
        finally:
            self._observer = previous

    @contextmanager
    def switched(self, on: bool) -> Iterator[None]:
        """Let the branch take part inside the block, or leave the backbone alone."""
        previous, self.enabled = self.enabled, on
        try:
            yield
        finally:
            self.enabled = previous

    @contextmanager
    def scheduled(self, schedule: Schedule) -> Iterator[None]:
        """Run the branch by another schedule inside the block."""
        previous, self.schedule = self.schedule, schedule
        try:
            yield
        finally:
            self.schedule = previous

    @contextmanager
    def steer(
        self,
        semantic_scale: torch.Tensor | None = None,
        refinement_scale: torch.Tensor | None = None,
        forced_N: torch.Tensor | None = None,
        strength: float = 1.0,
    ) -> Iterator[None]:
        """Steer the experts inside the block, in every pass; see :meth:`~prophy.branch.model.ProPhyBranch.forward`.

        ``strength`` multiplies the residuals: 0 leaves the backbone alone, with the routing still observed.

        Raises:
            ValueError: a scale of the wrong length.
        """
        expected = (self._branch.config.num_semantic_experts, self._branch.config.num_refinement_experts)
        for scale, length in zip((semantic_scale, refinement_scale), expected, strict=True):
            if scale is not None and scale.shape != (length,):
                raise ValueError(
                    f"a steering scale has shape {tuple(scale.shape)}: give one value for each of {length}"
                )
        previous = self._steering, self._strength
        self._steering, self._strength = (semantic_scale, refinement_scale, forced_N), strength
        try:
            yield
        finally:
            self._steering, self._strength = previous

    def detach(self) -> None:
        """Remove the hooks; every transformer is stock again.

        Raises:
            RuntimeError: a cache is enabled; its hooks hold on to ours, so that both would break.
        """
        if any(getattr(transformer, "is_cache_enabled", False) for transformer in self._transformers):
            raise RuntimeError("a cache is enabled: call transformer.disable_cache(), detach, then enable it again")
        for transformer in self._transformers:
            _remove_hooks(transformer, self._branch)

    def _run(self, transformer: nn.Module, args: tuple, kwargs: dict, context: str | None) -> None:
        self._residuals.current = None
        if not self.enabled or (context == "uncond" and not self.schedule.unconditional):
            return
        latents_BCTHW, timestep, text_BLD = self._branch.family.call_arguments(args, kwargs)
        parallel = _context_parallel(transformer)
        if parallel is not None and timestep.ndim == 2:  # its hooks, outside ours, have split one timestep a token
            timestep = _joined(timestep, parallel)
        if not self._is_scheduled(timestep):
            return
        conditional_only = not self.schedule.unconditional and _holds_both_passes(latents_BCTHW, context)
        if conditional_only:
            latents_BCTHW, timestep, text_BLD = (x.chunk(2)[1] for x in (latents_BCTHW, timestep, text_BLD))
        residuals, routing = self._branch(latents_BCTHW, timestep, text_BLD, *self._steering)
        if self._strength != 1:  # at 1 not even rounding changes
            residuals = [self._strength * r for r in residuals]
        if conditional_only:
            residuals = [torch.cat([torch.zeros_like(r), r]) for r in residuals]
        if parallel is not None:
            residuals = [_share(r, parallel) for r in residuals]
        self._residuals.current = residuals
        if self._observer is not None and context != "uncond":
            self._observer(float(timestep.max()), routing)

    def _is_scheduled(self, timestep: torch.Tensor) -> bool:
        """With one timestep for each token, tokens of a given picture are at 0 and the others at the step's."""
        # every pass asks no number of the device: that would wait for it
        return self.schedule.interval == (0, 1) or self.schedule.includes(float(timestep.max()) / _TIMESTEPS)


def attach(transformer: nn.Module | Sequence[nn.Module], branch: ProPhyBranch) -> Attachment:
    """Attach a branch to a stock transformer, or to several that take turns. All of them are hooked, or none.

    Args:
        transformer: with its weights.
        branch: made for it.

    Raises:
        ValueError: the branch was made for another backbone, fits only some of the transformers, or one is attached
            already.
        RuntimeError: a cache, offloading or context parallelism was enabled first; the message says what to do.
    """
    transformers = (transformer,) if isinstance(transformer, nn.Module) else tuple(transformer)
    check_fits(transformers, branch)
    for each in transformers:
        _check_order(each, branch)
    _align(branch)
    attachment = Attachment(transformers, branch)
    for each in transformers:
        HookRegistry.check_if_exists_or_initialize(each).register_hook(_RunBranch(attachment), _NAME)
        _hook_blocks(each, branch, attachment._residuals)
    return attachment


@torch.no_grad()
def _align(branch: ProPhyBranch) -> None:
    """Copy weights that a file was mapped to at an odd place: torch 2.10 multiplies groups on a CPU at places of 16."""
    for parameter in branch.parameters():
        if parameter.data_ptr() % 16:
            parameter.data = parameter.data.clone()


@contextmanager
def inject(transformer: nn.Module, branch: ProPhyBranch, residuals: list[torch.Tensor]) -> Iterator[None]:
    """Add residuals that were computed by the caller, as training does; run the backward pass inside the block too.

    Raises:
        ValueError: a branch is attached already, or the number of residuals is wrong.
        RuntimeError: see :func:`attach`.
    """
    _check_order(transformer, branch)
    if len(residuals) != len(branch.injections):
        raise ValueError(f"{len(residuals)} residuals for {len(branch.injections)} injections: pass one for each")
    holder = _Residuals()
    holder.current = residuals
    _hook_blocks(transformer, branch, holder)
    try:
        yield
    finally:
        _remove_hooks(transformer, branch)


def check_fits(transformers: Sequence[nn.Module], branch: ProPhyBranch) -> None:
    """Refuse a branch that was not made for every one of a pipeline's transformers; their weights may be missing.

    Raises:
        ValueError: one line that says what differs.
    """
    refusals = []
    for transformer in transformers:
        try:
            branch.check_fits(transformer)
        except ValueError as error:
            refusals.append(error)
    if len(refusals) == len(transformers):
        raise refusals[0] if refusals else ValueError("no transformer to attach the branch to: pass one at least")
    if refusals:
        raise ValueError(f"the branch fits only one of the pipeline's transformers, and must fit all: {refusals[0]}")


def _hook_blocks(transformer: nn.Module, branch: ProPhyBranch, residuals: _Residuals) -> None:
    blocks = branch.family.blocks(transformer)
    for i, site in enumerate(branch.injections):
        hook = _AddResidual(residuals, i, branch.family.add_residual)
        HookRegistry.check_if_exists_or_initialize(blocks[site]).register_hook(hook, _NAME)


def _remove_hooks(transformer: nn.Module, branch: ProPhyBranch) -> None:
    blocks = branch.family.blocks(transformer)
    for module in (transformer, *(blocks[site] for site in branch.injections)):
        HookRegistry.check_if_exists_or_initialize(module).remove_hook(_NAME, recurse=False)


def _check_order(transformer: nn.Module, branch: ProPhyBranch) -> None:
    if getattr(transformer, "is_cache_enabled", False):
        raise RuntimeError(
            "a cache is enabled: call transformer.disable_cache(), attach the branch, then enable it again"
        )
    for module in (transformer, *branch.family.blocks(transformer)):
        if hasattr(module, "_hf_hook"):
            raise RuntimeError(
                "offloading is enabled: call pipeline.remove_all_hooks(), attach the branch, then offload"
            )
        registry = getattr(module, "_diffusers_hook", None)
        names = list(registry.hooks) if registry is not None else []
        if _NAME in names:
            raise ValueError("a branch is attached already: call its detach() first")
        if names:
            raise RuntimeError(
                f"hooks are in place ({', '.join(names)}): attach the branch before offloading, caching or parallelism"
            )


def _holds_both_passes(latents_BCTHW: torch.Tensor, context: str | None) -> bool:
    """Whether one call of the CogVideoX pipeline makes the unconditional pass too, in the first half of its batch.

    Its context has the same name without guidance. With guidance both halves hold the same latents; two clips do so in
    the first step at most, and only if they were given the same noise.
    """
    if context != "cond_uncond" or len(latents_BCTHW) % 2:
        return False
    return torch.equal(*latents_BCTHW.chunk(2))


# --- context parallelism: each process holds a share of the tokens, and runs the branch on all of them ----------------


def _context_parallel(transformer: nn.Module) -> ContextParallelConfig | None:
    config = getattr(transformer, "_parallel_config", None)
    return None if config is None else config.context_parallel_config


def _share(residual_BND: torch.Tensor, parallel: ContextParallelConfig) -> torch.Tensor:
    """This process's tokens of a residual, split as diffusers splits the hidden states."""
    if parallel.ulysses_anything or parallel.ring_anything:
        return PartitionAnythingSharder.shard_anything(residual_BND, 1, parallel._flattened_mesh)
    return EquipartitionSharder.shard(residual_BND, 1, parallel._flattened_mesh)


def _joined(timestep_BN: torch.Tensor, parallel: ContextParallelConfig) -> torch.Tensor:
    if parallel.ulysses_anything or parallel.ring_anything:
        return PartitionAnythingSharder.unshard_anything(timestep_BN, 1, parallel._flattened_mesh)
    return EquipartitionSharder.unshard(timestep_BN, 1, parallel._flattened_mesh)
