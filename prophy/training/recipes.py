"""Every recipe by its name. A variant changes fields of another.

The paper ablates on Wan2.1-1.3B; every ablation exists here for every base. Its names, and the paper's rows:

========================== =============================================================================================
``…_lora``                 LoRA, no branch
``…_lora_seb``             LoRA + SEB
``…_lora_reb``             LoRA + REB
the base itself            PB + SEB + REB
``…_bce``                  … SEB trained with BCE
``…_align_only``           … REB with the align loss only, no balance
``…_balance_only``         … the opposite, which the paper does not show
``…_causal``               … with counterfactual routing, which is ours
========================== =============================================================================================

Both expert blocks reach the backbone through the Physical Blocks, so the rows with one of them keep those; the paper
does not say. Where the backbone is trained itself there is nothing to adapt, and ``…_alone``, ``…_seb`` and ``…_reb``
take the place of the rows with LoRA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from prophy.branch.family import default_sites
from prophy.branch.losses import LossWeights
from prophy.phenomena import PHENOMENA
from prophy.training.counterfactual import Counterfactual
from prophy.training.objectives import NoiseLevels
from prophy.training.recipe import BackboneShape, BranchShape, OptimiserSettings, Recipe

# --- the bases -------------------------------------------------------------------------------------------------------


def wan_1_3b() -> Recipe:
    """ProPhy on Wan2.1-T2V-1.3B, with the paper's λ; rates, batch and length are ours."""
    return Recipe(
        base="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        branch=BranchShape(tuple(default_sites(30))),
        noise=NoiseLevels("shifted", shift=3.0),
        losses=LossWeights(coarse=0.1, fine_align=0.02, fine_balance=0.01),
    )


def cogvideox_5b() -> Recipe:
    """ProPhy on CogVideoX-5B: the same λ (paper); v-prediction comes with the base's scheduler."""
    return replace(
        wan_1_3b(),
        base="THUDM/CogVideoX-5b",
        branch=BranchShape(tuple(default_sites(42))),
        noise=NoiseLevels("uniform"),
    )


def tiny() -> Recipe:
    """ProPhy beside the embedded model, whose weights stay as they are.

    The loss weights are not the paper's: our terms are means where its are sums, and the branch learns its routing from
    scratch within a few thousand small batches. With an ``align_background`` of 1, a map may be high for phenomena that
    the clip does not show.
    """
    return Recipe(
        base="",
        branch=BranchShape((1, 4, 7), semantic_experts=16, refinement_form="residual"),  # as the shipped branch
        lora_rank=16,
        noise=NoiseLevels("logit_normal", mean=0.3, std=1.1),
        losses=LossWeights(coarse=0.1, fine_align=1.0, fine_balance=0.03),
        align_background=8.0,
        foreground=2.0,
        steps=1400,
        batch=16,
        optimiser=OptimiserSettings("muon", 1e-3, 0.01, warm_up=100, decay="linear"),
        ema=0.9985,
        backbone_dtype="float32",
        checkpointing=False,
    )


def tiny_transformer() -> Recipe:
    """The embedded model's backbone from nothing: constant rates, and a cool-down over the last fifth of the steps.

    Most of a frame is wall: without ``foreground`` the loss is content with an empty scene for long.
    """
    return replace(
        tiny(),
        branch=None,
        backbone="trained",
        scratch=BackboneShape(width=256, heads=4, layers=8),
        losses=LossWeights(0.0, 0.0, 0.0),
        steps=60_000,
        optimiser=OptimiserSettings("muon", 1e-3, 0.02, warm_up=200, decay="cool_down", cool_down=0.2),
    )


def tiny_together() -> Recipe:
    """:func:`tiny`, and the backbone learns too, as it did when the embedded model was made.

    Its rates start from half of the peaks of :func:`tiny_transformer`. The paper trains the branch with a LoRA on the
    backbone; at the embedded model's width a LoRA of its rank is the whole matrix, so the backbone itself learns. Of
    the losses only the diffusion loss reaches it.
    """
    alone = tiny()
    return replace(
        alone,
        backbone="trained",
        optimiser=replace(alone.optimiser, decay="cool_down", cool_down=1.0),
        backbone_optimiser=replace(tiny_transformer().optimiser, cool_down=2.0),
    )


def tiny_stills() -> Recipe:
    """The second embedded model's backbone from nothing, on the first latent frame of each clip (``--unlawful``).

    A still is a fifth of a clip's work, and what things look like, their colours and their places are all in it.
    """
    alone = tiny_transformer()
    return replace(
        alone,
        latent_frames=1,
        scratch=BackboneShape(width=256, heads=4, layers=8, patch=(1, 2, 2)),
        steps=1500,
        batch=32,
        optimiser=replace(alone.optimiser, cool_down=0.5),
        ema=0.998,
    )


def tiny_base() -> Recipe:
    """:func:`tiny_stills` goes on, by ``--initial``, with whole clips whose clocks obey no law.

    It learns how things look from frame to frame and nothing of how they move: that is left to :func:`tiny_branch`. A
    clip has eight times as many numbers as the first embedded model's, most of them alike from frame to frame, and its
    layout is the largest part of its latents (:mod:`prophy.tiny.latent_scale`): what it shows is decided between noise
    0.95 and 0.998 (Esser et al., 2024, section 5.3.2, on why so high), which 28 % of the draws visit. A model that
    never saw those takes noise for layout. Half of the steps see stills.
    """
    stills = tiny_stills()
    return replace(
        stills,
        latent_frames=0,
        stills=0.5,
        noise=NoiseLevels("shifted", shift=8.0),
        steps=4800,
        batch=16,
        optimiser=replace(stills.optimiser, cool_down=1.0),
    )


def tiny_branch() -> Recipe:
    """ProPhy beside the second embedded model, frozen, on lawful clips: what it has of the laws, the branch brought.

    All Physical Blocks copy early blocks and only the last one's residual is added, after a third of the backbone: five
    blocks read what the refinement experts did. In the paper's figure each Physical Block adds its own after its
    backbone block; the laws then flow around the experts (docs/EXPERIMENTS.md).
    """
    first = tiny()
    return replace(
        first,
        branch=BranchShape((0, 1, 2), semantic_experts=16, reference_grid=(5, 8, 12), injections=(2,)),
        noise=tiny_base().noise,
        align_others=8.0,
        steps=1200,
        ema=0.998,
    )


Variant: TypeAlias = Callable[[Recipe], Recipe]  #: a recipe of another

# --- the paper's ablations -------------------------------------------------------------------------------------------


def _adapted(full: Recipe) -> Recipe:
    return full if full.backbone == "trained" else replace(full, backbone="lora")


def _branch_of(full: Recipe) -> BranchShape:
    if full.branch is None:
        raise ValueError("the ablations of a branch need a recipe that has one")
    return full.branch


def without_branch(full: Recipe) -> Recipe:
    """The backbone adapted, or trained, alone."""
    return replace(_adapted(full), branch=None, losses=LossWeights(0.0, 0.0, 0.0))


def seb_only(full: Recipe) -> Recipe:
    """No Refinement Expert Block, nor its losses."""
    losses = replace(full.losses, fine_align=0.0, fine_balance=0.0)
    return replace(_adapted(full), branch=replace(_branch_of(full), refinement=False), losses=losses)


def reb_only(full: Recipe) -> Recipe:
    """No Semantic Expert Block, nor its loss."""
    losses = replace(full.losses, coarse=0.0)
    return replace(_adapted(full), branch=replace(_branch_of(full), semantic=False), losses=losses)


def bce(full: Recipe) -> Recipe:
    """The Semantic Expert Block learns each clip's labels by itself."""
    return replace(full, coarse="bce")


def align_only(full: Recipe) -> Recipe:
    """The refinement router is not balanced."""
    return replace(full, losses=replace(full.losses, fine_balance=0.0))


def balance_only(full: Recipe) -> Recipe:
    """The refinement router is not aligned."""
    return replace(full, losses=replace(full.losses, fine_align=0.0))


def causal(full: Recipe) -> Recipe:
    """One refinement expert a phenomenon and one for none, which counterfactual routing makes causes. Ours."""
    branch = _branch_of(full)
    return replace(
        full,
        branch=replace(branch, refinement_experts=len(PHENOMENA) + 1, injections=branch.sites[-1:]),
        losses=replace(full.losses, routing=0.1, fine_balance=0.0),
        counterfactual=Counterfactual(share=0.35),
    )


def _varied(variant: Variant, base: Callable[[], Recipe]) -> Recipe:
    return variant(base())


def _with_variants(base: Callable[[], Recipe], adapted: bool) -> dict[str, Callable[[], Recipe]]:
    single = ("lora", "lora_seb", "lora_reb") if adapted else ("alone", "seb", "reb")
    names: tuple[str, ...] = (*single, "bce", "align_only", "balance_only")
    variants: tuple[Variant, ...] = (
        without_branch,
        seb_only,
        reb_only,
        bce,
        align_only,
        balance_only,
    )
    made = {base.__name__: base}
    if base().backbone == "frozen":
        names, variants = (*names, "causal"), (*variants, causal)
    for name, variant in zip(names, variants, strict=True):
        made[f"{base.__name__}_{name}"] = partial(_varied, variant, base)
    return made


#: every recipe by its name
RECIPES: dict[str, Callable[[], Recipe]] = {
    **_with_variants(wan_1_3b, adapted=True),
    **_with_variants(cogvideox_5b, adapted=True),
    **_with_variants(tiny, adapted=True),
    **_with_variants(tiny_together, adapted=False),
    **_with_variants(tiny_branch, adapted=True),
    "tiny_transformer": tiny_transformer,
    "tiny_stills": tiny_stills,
    "tiny_base": tiny_base,
}


def recipe_named(name: str) -> Recipe:
    """Build a recipe.

    Raises:
        ValueError: no recipe of that name.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}: use one of {', '.join(RECIPES)}")
    return RECIPES[name]()
