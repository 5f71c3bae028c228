"""What a training changes: a backbone and a branch as one module, with what is trained marked and the rest frozen.

Shapes: B batch, C latent channels, T latent frames, H height, W width, L text length, D text width, N tokens,
S semantic experts, E refinement experts, K top-k, P phenomena.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from diffusers import ModelMixin
from peft import LoraConfig
from torch import nn

import prophy.backbones  # noqa: F401  registers the families
from prophy.branch import ProPhyBranch, inject
from prophy.branch.family import family_of
from prophy.training.recipes import BranchShape, Recipe

#: linear layers that LoRA adapts: attention and feed-forward of every block, by the names of both families
_ADAPTED = ["to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2"]


class Prediction(NamedTuple):
    """What one pass gives; without a branch all but the first are None. A tuple, so that sharding finds the tensors."""

    predicted_BCTHW: torch.Tensor
    labels_BP: torch.Tensor | None = None
    semantic_weights_BS: torch.Tensor | None = None
    probs_BNE: torch.Tensor | None = None
    topk_ids_BNK: torch.Tensor | None = None
    phenomenon_map_BNP: torch.Tensor | None = None


class TrainableModule(nn.Module):
    """A backbone, and a branch beside it, in training.

    Args:
        transformer: the backbone.
        branch: None trains the backbone alone.
        precision: what matrix products are computed in.
    """

    def __init__(self, transformer: nn.Module, branch: ProPhyBranch | None, precision: torch.dtype) -> None:
        super().__init__()
        self.transformer, self.branch = transformer, branch
        self._precision = precision
        self._family = family_of(type(transformer).__name__)
        self._residuals = [torch.zeros(())] * (0 if branch is None else len(branch.injections))

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Only inside, residuals reach the backbone; the backward pass has to be inside too."""
        with nullcontext() if self.branch is None else inject(self.transformer, self.branch, self._residuals):
            yield

    def forward(
        self,
        noisy_BCTHW: torch.Tensor,
        timestep_B: torch.Tensor,
        text_BLD: torch.Tensor,
        refinement_scale: torch.Tensor | None = None,
        use_branch: bool = True,
    ) -> Prediction:
        """Predict.

        Args:
            noisy_BCTHW: the network's input.
            timestep_B: as schedulers count.
            text_BLD: prompts.
            refinement_scale: steering of the refinement experts, ``(B, 1, E)``.
            use_branch: False runs the backbone alone. Not between a pass with the branch and its backward pass: with
                checkpointing that one reads the residuals again.
        """
        routed: tuple[torch.Tensor, ...] = ()
        mixed = self._precision is not torch.float32
        with torch.autocast(noisy_BCTHW.device.type, self._precision) if mixed else nullcontext():
            if self.branch is not None and not use_branch:
                self._residuals[:] = [noisy_BCTHW.new_zeros(())] * len(self._residuals)
            elif self.branch is not None:
                self._residuals[:], routing = self.branch(
                    noisy_BCTHW, timestep_B, text_BLD, refinement_scale=refinement_scale
                )
                routed = (
                    self.branch.labels_from_semantics(routing.semantic_weights_BS),
                    routing.semantic_weights_BS,
                    routing.probs_BNE,
                    routing.topk_ids_BNK,
                    routing.phenomenon_map_BNP,
                )
            dtype = self.transformer.dtype
            predicted = self._family.run_transformer(
                self.transformer, noisy_BCTHW.to(dtype), timestep_B, text_BLD.to(dtype)
            )
        return Prediction(predicted.float(), *routed)


def build_trainable(transformer: ModelMixin, recipe: Recipe) -> TrainableModule:
    """Build the branch that a recipe asks for, beside a backbone as it was opened, and mark what is trained.

    Raises:
        ValueError: the branch does not fit the backbone.
    """
    branch = None if recipe.branch is None else _build_branch(transformer, recipe.branch, recipe.seed)
    transformer.requires_grad_(recipe.backbone == "trained").train()
    if recipe.backbone == "trained":
        transformer.float()
    if recipe.backbone == "lora":
        torch.manual_seed(recipe.seed)
        transformer.add_adapter(lora_config(recipe.lora_rank))
        for parameter in transformer.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    module = TrainableModule(transformer, branch, getattr(torch, recipe.precision))
    if recipe.checkpointing:
        for model in (transformer, branch):
            if model is not None:
                model.enable_gradient_checkpointing()
    return module


def lora_config(rank: int) -> LoraConfig:
    """LoRA of scale 1 on attention and feed-forward of every block."""
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=_ADAPTED, init_lora_weights="gaussian")


def _build_branch(transformer: ModelMixin, shape: BranchShape, seed: int) -> ProPhyBranch:
    """Float32, on the CPU. A block that is left out is there, zero and frozen: the branch's class needs no switch."""
    torch.manual_seed(seed)
    branch = ProPhyBranch.from_transformer(
        transformer,
        sites=list(shape.sites),
        num_semantic_experts=shape.semantic_experts,
        num_refinement_experts=shape.refinement_experts,
        top_k=shape.top_k,
        reference_grid=list(shape.reference_grid),
        injections=None if shape.injections is None else list(shape.injections),
        refinement_form=shape.refinement_form,
    )
    branch.float().train()
    with torch.no_grad():
        if not shape.semantic:
            branch.semantic.requires_grad_(False).basis_SCTHW.zero_()
            branch.coarse_head.requires_grad_(False)
        if not shape.refinement:
            branch.refinement.requires_grad_(False)
            branch.map_head.requires_grad_(False)
            branch.refinement.weight_EDD.zero_()
            branch.refinement.bias_ED.zero_()
    return branch


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters under training, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
