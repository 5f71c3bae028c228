"""What a training changes: a backbone and a branch as one module, with what is trained marked and the rest frozen.

Shapes: B batch, C latent channels, T latent frames, H height, W width, L text length, D text width, N tokens,
S semantic experts, E refinement experts, K top-k, P phenomena.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import ModelMixin
from peft import LoraConfig
from torch import nn

from prophy.backbones import Backbone, backbone_of
from prophy.backbones.opening import first_line
from prophy.backbones.variants import variant_beside
from prophy.branch import ProPhyBranch, inject
from prophy.catalogue.describe import BRANCH_FOLDER
from prophy.files import files_sha256, visible
from prophy.training.devices import autocast
from prophy.training.recipe import BranchShape, Recipe


class Routed(NamedTuple):
    """What the branch's routers said in one pass. A tuple, so that sharding finds the tensors."""

    labels_BP: torch.Tensor
    semantic_weights_BS: torch.Tensor
    probs_BNE: torch.Tensor
    topk_ids_BNK: torch.Tensor
    phenomenon_map_BNP: torch.Tensor


class Prediction(NamedTuple):
    """What one pass gives; ``routed`` is None where no branch took part."""

    predicted_BCTHW: torch.Tensor
    routed: Routed | None = None


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
        self._family = backbone_of(transformer)
        self._residuals = [torch.zeros(())] * (0 if branch is None else len(branch.injections))
        self._attachment = ExitStack()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Only inside, residuals reach the backbone; the backward pass has to be inside too."""
        self._attach()
        try:
            yield
        finally:
            self._attachment.close()

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Inside :meth:`attached`: for the length of the block the backbone is stock."""
        self._attachment.close()
        try:
            yield
        finally:
            self._attach()

    def _attach(self) -> None:
        if self.branch is not None:
            self._attachment.enter_context(inject(self.transformer, self.branch, self._residuals))

    def compile_blocks(self) -> None:
        """Run every block through ``torch.compile``; not the branch's last: the groups of its experts vary."""
        blocks = list(self._family.blocks(self.transformer))
        if self.branch is not None:
            blocks += list(self.branch.blocks)[:-1]
        for block in blocks:
            block.compile(dynamic=False)

    def use_plain_attention(self) -> None:
        """Compute attention as plain matrix products, which at a few hundred tokens a CPU does faster.

        Raises:
            ValueError: the backbone's family has none.
        """
        processor = getattr(self._family, "plain_attention", None)
        if processor is None:
            raise ValueError(f"{self._family.name} has no plain attention: leave --plain-attention out")
        for model in (self.transformer, self.branch):
            if model is not None:
                model.set_attn_processor(processor())

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
        routed: Routed | None = None
        with autocast(noisy_BCTHW.device, self._precision):
            if self.branch is not None and not use_branch:
                self._residuals[:] = [noisy_BCTHW.new_zeros(())] * len(self._residuals)
            elif self.branch is not None:
                self._residuals[:], routing = self.branch(
                    noisy_BCTHW, timestep_B, text_BLD, refinement_scale=refinement_scale
                )
                routed = Routed(
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
        return Prediction(predicted.float(), routed)


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
        adapter = lora_config(backbone_of(transformer), recipe.lora_rank)
        torch.manual_seed(recipe.seed)
        transformer.add_adapter(adapter)
        for parameter in transformer.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    module = TrainableModule(transformer, branch, getattr(torch, recipe.precision))
    if recipe.checkpointing:
        for model in (transformer, branch):
            if model is not None:
                model.enable_gradient_checkpointing()
    return module


@torch.no_grad()
def start_from(module: TrainableModule, folder: Path) -> None:
    """Take weights from a model folder instead of the start: those of its branch, and of a backbone that is trained.

    Args:
        module: as built; changed here.
        folder: what ``prophy publish`` wrote, or a whole model with its branch.

    Raises:
        ValueError: nothing in it is trained here, or it does not fit. One line.
    """
    folder, taken = Path(folder), []
    sources = _initial_sources(folder)
    if not all(parameter.requires_grad for parameter in module.transformer.parameters()):
        del sources["transformer"]
    for name, source in sources.items():
        part = getattr(module, name)
        if part is None or not (source / "config.json").is_file():
            continue
        try:
            saved = type(part).from_pretrained(source, dtype=torch.float32, variant=variant_beside(source))
            part.load_state_dict(saved.state_dict())
        except (OSError, ValueError, RuntimeError) as error:
            why = first_line(error)
            raise ValueError(f"the {name} in {folder} does not fit here ({why}): give another --initial") from error
        taken.append(name)
    if not taken:
        raise ValueError(f"{folder} holds no weights that are trained here: give a published model as --initial")


def initial_digest(folder: Path) -> str:
    """A digest of the weights and configurations that :func:`start_from` reads in a folder."""
    files = [
        path
        for source in _initial_sources(Path(folder)).values()
        for path in visible(source)
        if path.name == "config.json" or path.suffix == ".safetensors"
    ]
    return files_sha256(Path(folder), files)[:32]


def _initial_sources(folder: Path) -> dict[str, Path]:
    inner = folder / BRANCH_FOLDER
    return {"branch": inner if inner.is_dir() else folder, "transformer": folder / "transformer"}


def lora_config(family: Backbone, rank: int) -> LoraConfig:
    """LoRA of scale 1 on attention and feed-forward of every block.

    Raises:
        ValueError: the family's pipeline reads no LoRA.
    """
    if not family.lora_targets:
        raise ValueError(f"{family.name} takes no LoRA: use a recipe with backbone frozen or trained")
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=list(family.lora_targets), init_lora_weights="gaussian")


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
