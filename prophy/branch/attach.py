"""Residual injection: the branch beside a stock, unmodified transformer.

``attach`` hooks a transformer so that each of its forward passes first runs the branch, then adds residual i after
block i. Two transformers that take turns along the noise, as Wan2.2's, share one branch and one attachment: the branch
reads the noisy latent, never hidden states. The hooks are diffusers' own and sit *inside* those of its caches and
offloading, so a skipped or moved block keeps its residual exactly once; attaching in any other order is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import StateManager
from torch import nn

from prophy.branch.model import ProPhyBranch
from prophy.routing import Routing

_NAME = "prophy"

Observer = Callable[[float, Routing], None]


class _Residuals:
    """The residuals of the forward pass under way; block hooks take theirs from here."""

    def __init__(self) -> None:
        self.current: list[torch.Tensor] | None = None


class _AddResidual(ModelHook):
    """After a block: add the residual of its site."""

    def __init__(self, residuals: _Residuals, index: int, add: Callable) -> None:
        super().__init__()
        self._residuals, self._index, self._add = residuals, index, add

    def post_forward(self, module: nn.Module, output):
        if self._residuals.current is None:
            return output
        return self._add(output, self._residuals.current[self._index])


class _RunBranch(ModelHook):
    """Before the transformer: run the branch. Its state manager tells the conditional pass from the unconditional."""

    _is_stateful = True

    def __init__(self, attachment: Attachment) -> None:
        super().__init__()
        self._attachment = attachment
        self._context = StateManager(object)

    def pre_forward(self, module: nn.Module, *args, **kwargs):
        context = self._context._context
        self._attachment._run(args, kwargs, None if context is None else context.name)
        return args, kwargs

    def post_forward(self, module: nn.Module, output):
        self._attachment._residuals.current = None  # as large as a block's own tensors: not to be held while decoding
        return output

    def reset_state(self, module: nn.Module) -> nn.Module:
        self._context.reset()
        return module


class Attachment:
    """A branch attached to one or more transformers. Made by :func:`attach`.

    Attributes:
        enabled: False leaves the backbone alone.
    """

    def __init__(self, transformers: tuple[nn.Module, ...], branch: ProPhyBranch) -> None:
        self.enabled = True
        self._transformers, self._branch = transformers, branch
        self._residuals = _Residuals()
        self._observer: Observer | None = None
        self._steering: tuple[torch.Tensor | None, ...] = (None, None, None)  # as the branch's forward takes them

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
    def steer(
        self,
        semantic_scale: torch.Tensor | None = None,
        refinement_scale: torch.Tensor | None = None,
        forced_N: torch.Tensor | None = None,
    ) -> Iterator[None]:
        """Steer the experts inside the block, in every pass; see :meth:`ProPhyBranch.forward`.

        Raises:
            ValueError: a scale of the wrong length.
        """
        expected = (self._branch.config.num_semantic_experts, self._branch.config.num_refinement_experts)
        for scale, length in zip((semantic_scale, refinement_scale), expected, strict=True):
            if scale is not None and scale.shape != (length,):
                raise ValueError(
                    f"a steering scale has shape {tuple(scale.shape)}: give one value for each of {length}"
                )
        previous, self._steering = self._steering, (semantic_scale, refinement_scale, forced_N)
        try:
            yield
        finally:
            self._steering = previous

    def detach(self) -> None:
        """Remove the hooks; every transformer is stock again.

        Raises:
            RuntimeError: a cache is enabled; its hooks hold on to ours, so that both would break.
        """
        if any(getattr(transformer, "is_cache_enabled", False) for transformer in self._transformers):
            raise RuntimeError("a cache is enabled: call transformer.disable_cache(), detach, then enable it again")
        for transformer in self._transformers:
            _remove_hooks(transformer, self._branch)

    def _run(self, args: tuple, kwargs: dict, context: str | None) -> None:
        if not self.enabled:
            self._residuals.current = None
            return
        latents, timestep, text = self._branch.family.call_arguments(args, kwargs)
        self._residuals.current, routing = self._branch(latents, timestep, text, *self._steering)
        if self._observer is not None and context != "uncond":
            # with a timestep for each token, tokens that hold a given picture are at 0 and the others at the step's
            self._observer(float(timestep.max()), routing)


def attach(transformer: nn.Module | Sequence[nn.Module], branch: ProPhyBranch) -> Attachment:
    """Attach a branch to a stock transformer, or to several that take turns. All of them are hooked, or none.

    Raises:
        ValueError: the branch was made for another backbone, fits only some of the transformers, or one is attached
            already.
        RuntimeError: a cache or offloading was enabled first; the message says what to do.
    """
    transformers = (transformer,) if isinstance(transformer, nn.Module) else tuple(transformer)
    check_fits(transformers, branch)
    for each in transformers:
        _check_order(each, branch)
    attachment = Attachment(transformers, branch)
    for each in transformers:
        HookRegistry.check_if_exists_or_initialize(each).register_hook(_RunBranch(attachment), _NAME)
        _hook_blocks(each, branch, attachment._residuals)
    return attachment


@contextmanager
def inject(transformer: nn.Module, branch: ProPhyBranch, residuals: list[torch.Tensor]) -> Iterator[None]:
    """Add residuals that were computed by the caller, as training does; run the backward pass inside the block too.

    Raises:
        ValueError: a branch is attached already, or the number of residuals is wrong.
        RuntimeError: see :func:`attach`.
    """
    _check_order(transformer, branch)
    if len(residuals) != len(branch.config.sites):
        raise ValueError(f"{len(residuals)} residuals for {len(branch.config.sites)} sites: pass one for each")
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
    for i, site in enumerate(branch.config.sites):
        hook = _AddResidual(residuals, i, branch.family.add_residual)
        HookRegistry.check_if_exists_or_initialize(blocks[site]).register_hook(hook, _NAME)


def _remove_hooks(transformer: nn.Module, branch: ProPhyBranch) -> None:
    blocks = branch.family.blocks(transformer)
    for module in (transformer, *(blocks[site] for site in branch.config.sites)):
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
                f"hooks are in place ({', '.join(names)}): attach the branch before offloading or caching"
            )
