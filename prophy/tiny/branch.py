"""The embedded model's physical branch, trained beside its transformer with the worlds' masks as targets.

    prophy tiny branch --work runs/tiny

Shapes: B batch, C latent channels, T latent frames, H height, W width, N tokens, P phenomena.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from tqdm import tqdm
from transformers import UMT5EncoderModel

import prophy.backbones  # noqa: F401  registers the families
from prophy.branch import ProPhyBranch, inject
from prophy.branch.losses import LossWeights, coarse_loss, fine_align_loss, fine_balance_loss, total_loss
from prophy.catalogue.describe import BRANCH_FOLDER
from prophy.data.encode import encode_text
from prophy.data.latents import LatentCache, open_cache
from prophy.routing.trace import Routing
from prophy.tiny.attention import TrainingAttnProcessor
from prophy.tiny.transformer import TransformerRecipe, load_parts, validation_losses
from prophy.training.checkpoints import load_checkpoint, save_checkpoint
from prophy.training.flow import FlowBatch, flow_batch, flow_loss
from prophy.training.learner import Learner
from prophy.worlds.scope import SCOPE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BranchRecipe:
    """How the branch is trained, and the backbone with it.

    The paper trains the branch with a LoRA on the backbone; at the embedded model's width a LoRA of its rank is the
    whole matrix, so the backbone itself learns. Of the losses only the flow's reaches it. The loss weights are not the
    paper's: our terms are means where its are sums, and the embedded model learns its routing from scratch within a few
    thousand small batches.
    """

    clips: int = 12000
    steps: int = 1400
    warm_up: int = 100
    batch: int = 16
    sites: tuple[int, ...] = (1, 4, 7)
    semantic_experts: int = 16
    refinement_experts: int = 8
    top_k: int = 2
    weights: LossWeights = field(default_factory=lambda: LossWeights(coarse=0.1, fine_align=1.0, fine_balance=0.03))
    align_background: float = 8.0  # with 1, a map may be high for phenomena that the clip does not show
    muon_rate: float = 0.01
    adamw_rate: float = 1e-3
    rate: float = 1.0  # share of these two peak rates to start from
    backbone_rate: float = 0.5  # share of the transformer recipe's peak rates to start from; 0 leaves it frozen
    weight_decay: float = 0.01
    ema: float = 0.9985  # as the backbone's: what learns together is averaged together
    seed: int = 2


@dataclass(frozen=True)
class StepLosses:
    """The terms of eq. 6 for one batch, scalars with gradients."""

    total: torch.Tensor
    flow: torch.Tensor
    coarse: torch.Tensor
    fine_align: torch.Tensor
    fine_balance: torch.Tensor

    def row(self) -> dict[str, float]:
        return {name: round(float(value.detach()), 5) for name, value in vars(self).items()}


def build_branch(transformer: WanTransformer3DModel, recipe: BranchRecipe) -> ProPhyBranch:
    """An untrained branch beside the embedded transformer."""
    torch.manual_seed(recipe.seed)
    return ProPhyBranch.from_transformer(
        transformer,
        sites=list(recipe.sites),
        num_semantic_experts=recipe.semantic_experts,
        num_refinement_experts=recipe.refinement_experts,
        top_k=recipe.top_k,
    )


def predict(
    transformer: WanTransformer3DModel,
    branch: ProPhyBranch,
    residuals: list[torch.Tensor],
    batch: FlowBatch,
    encoder: UMT5EncoderModel,
) -> tuple[torch.Tensor, Routing]:
    """The velocity that backbone and branch predict together, ``(B, C, T, H, W)``, and the routing.

    Args:
        residuals: the list that :func:`prophy.branch.inject` was opened with; refilled here.
    """
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            text_BLD = encode_text(encoder, batch.ids_BL)
        residuals[:], routing = branch(batch.noisy_BCTHW, batch.timestep_B, text_BLD)
        return transformer(batch.noisy_BCTHW, batch.timestep_B, text_BLD, return_dict=False)[0], routing


def step_losses(
    prediction_BCTHW: torch.Tensor,
    routing: Routing,
    branch: ProPhyBranch,
    batch: FlowBatch,
    cache: LatentCache,
    recipe: BranchRecipe,
) -> StepLosses:
    """Eq. 6. Rows whose caption was dropped train the flow alone: no text, no physics to read from it."""
    flow = flow_loss(prediction_BCTHW, batch)
    kept = batch.described_B
    labels_BP = cache.labels(batch.rows)
    coarse = coarse_loss(branch.labels_from_semantics(routing.semantic_weights_BS)[kept], labels_BP[kept])
    align = fine_align_loss(
        routing.phenomenon_map_BNP[kept], cache.targets(batch.rows)[kept], labels_BP[kept], recipe.align_background
    )
    balance = fine_balance_loss(routing.probs_BNE[kept], routing.topk_ids_BNK[kept])
    return StepLosses(total_loss(flow, coarse, align, balance, recipe.weights), flow, coarse, align, balance)


def train_branch(
    work: Path,
    recipe: BranchRecipe,
    minutes: float,
    compiled: bool = False,
    initial: Path | None = None,
    checkpoint_every: int = 250,
) -> Path:
    """Train until the recipe's end or for ``minutes``, resuming exactly.

    Saves the branch in ``work/model/branch``, and the backbone that learnt with it in ``work/model/transformer``.

    Args:
        work: folder of checkpoints and results; ``work/model`` holds the backbone to start from.
        recipe: what to train.
        minutes: stop, resumable, after this long.
        compiled: run the blocks through ``torch.compile``: faster, needs a C++ compiler.
        initial: folder of a branch to start from, with a new optimiser, when there is no checkpoint.
        checkpoint_every: steps.

    Raises:
        ValueError: the checkpoint was made by another recipe.
        FloatingPointError: the loss is no longer a number.
    """
    work = Path(work)
    parts = load_parts(work)
    cache = open_cache(work / "latents", parts.vae, parts.tokenizer, recipe.clips, SCOPE)
    held_out = open_cache(work / "latents-test", parts.vae, parts.tokenizer, 256, SCOPE, "test")
    transformer = _open_backbone(work / "model" / "transformer", trained=recipe.backbone_rate > 0)
    branch = build_branch(transformer, recipe).train()
    if initial is not None:
        branch.load_state_dict(ProPhyBranch.from_pretrained(initial, dtype=torch.float32).state_dict())
    for model in (transformer, branch):
        model.set_attn_processor(TrainingAttnProcessor())
    learners = {"branch": Learner(branch, recipe.muon_rate, recipe.adamw_rate, recipe.weight_decay, recipe.ema)}
    if recipe.backbone_rate > 0:
        backbone = TransformerRecipe()
        learners["transformer"] = Learner(
            transformer, backbone.muon_rate, backbone.adamw_rate, backbone.weight_decay, backbone.ema
        )
    recorded = json.loads(json.dumps(asdict(recipe)))
    step = 0
    if state := load_checkpoint(work / "branch"):
        if state["recipe"] != recorded:
            raise ValueError(f"{work / 'branch'} was trained with another recipe: choose another --work or delete it")
        for name, learner in learners.items():
            learner.load_state_dict(state[name])
        step = state["step"]
        log.info("resumed at step %d", step)
    else:  # the folder that the backbone came from is written over: keep the start
        _save(work / "branch", recorded, step, learners)
    if compiled:
        for block in (*transformer.blocks, *branch.blocks[:-1]):  # the last one holds the experts: its groups vary
            block.compile(dynamic=False)
    end = time.monotonic() + 60 * minutes
    bar = tqdm(total=recipe.steps, initial=step, desc="branch", mininterval=10)
    residuals = [torch.zeros(()) for _ in recipe.sites]
    with inject(transformer, branch, residuals):
        while step < recipe.steps and time.monotonic() < end:
            # 1. one step of eq. 6
            batch = flow_batch(cache, step, recipe.batch, recipe.seed)
            prediction, routing = predict(transformer, branch, residuals, batch, parts.encoder)
            losses = step_losses(prediction, routing, branch, batch, cache, recipe)
            if not torch.isfinite(losses.total):
                raise FloatingPointError(f"loss is {float(losses.total)} at step {step} (clips {batch.rows.tolist()})")
            losses.total.backward()
            # 2. learn: short rises, then down to nothing
            left = 1 - step / recipe.steps
            learners["branch"].step(step, min((step + 1) / recipe.warm_up, recipe.rate * left))
            if "transformer" in learners:
                share = min((step + 1) / TransformerRecipe.warm_up, recipe.backbone_rate * left)
                learners["transformer"].step(step, share)
            step += 1
            # 3. report and keep
            bar.update()
            if step % 25 == 0:
                bar.set_postfix(losses.row(), refresh=False)
            if step % checkpoint_every == 0 or step == recipe.steps or time.monotonic() >= end:
                with ExitStack() as stack:
                    for learner in learners.values():
                        stack.enter_context(learner.averaged())
                    scores = validation_losses(
                        lambda b: predict(transformer, branch, residuals, b, parts.encoder)[0], held_out
                    )
                    branch.save_pretrained(work / "model" / BRANCH_FOLDER)
                    if "transformer" in learners:
                        transformer.save_pretrained(work / "model" / "transformer")
                with open(work / "branch.jsonl", "a") as file:
                    file.write(json.dumps({"step": step, "train": losses.row(), **scores}) + "\n")
                _save(work / "branch", recorded, step, learners)
    return work / "model" / BRANCH_FOLDER


def _open_backbone(folder: Path, trained: bool) -> WanTransformer3DModel:
    """The backbone in float32; when it stays frozen, rounded to fp16 as it ships."""
    transformer = WanTransformer3DModel.from_pretrained(folder, dtype=torch.float32 if trained else torch.float16)
    return transformer.float().train(trained).requires_grad_(trained)


def _save(folder: Path, recipe: dict, step: int, learners: dict[str, Learner]) -> None:
    states = {name: learner.state_dict() for name, learner in learners.items()}
    save_checkpoint(folder, {"recipe": recipe, "step": step, **states})


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="prophy tiny branch", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="folder of checkpoints and results")
    parser.add_argument("--minutes", type=float, default=600, help="stop, resumable, after this long")
    parser.add_argument("--clips", type=int, default=BranchRecipe.clips, help="training clips to encode")
    parser.add_argument("--steps", type=int, default=BranchRecipe.steps, help="training steps in all")
    parser.add_argument("--seed", type=int, default=BranchRecipe.seed, help="of the start and of the batches")
    parser.add_argument("--initial", type=Path, help="branch folder to start from, with a new optimiser")
    parser.add_argument("--rate", type=float, default=BranchRecipe.rate, help="share of the peak rates to start from")
    parser.add_argument(
        "--backbone-rate",
        type=float,
        default=BranchRecipe.backbone_rate,
        help="the same for the backbone's own recipe; 0 leaves it frozen",
    )
    parser.add_argument("--compile", action="store_true", help="faster steps; needs a C++ compiler")
    args = parser.parse_args(argv)
    recipe = BranchRecipe(
        clips=args.clips, steps=args.steps, seed=args.seed, rate=args.rate, backbone_rate=args.backbone_rate
    )
    train_branch(args.work, recipe, args.minutes, args.compile, args.initial)
