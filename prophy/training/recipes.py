"""Recipes: everything that decides what a training learns, as frozen values. A variant changes fields of another.

The paper ablates on Wan2.1-1.3B; every ablation exists here for every base. Its names, and the paper's rows:

========================== =============================================================================================
``…_lora``                 LoRA, no branch
``…_lora_seb``             LoRA + SEB
``…_lora_reb``             LoRA + REB
the base itself            PB + SEB + REB
``…_bce``                  … SEB trained with BCE
``…_align_only``           … REB with the align loss only, no balance
``…_balance_only``         … the opposite, which the paper does not show
========================== =============================================================================================

Both expert blocks reach the backbone through the Physical Blocks, so the rows with one of them keep those; the paper
does not say. Where the backbone is trained itself there is nothing to adapt, and ``…_alone``, ``…_seb`` and ``…_reb``
take the place of the rows with LoRA.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace

from prophy.branch.family import default_sites
from prophy.branch.losses import LossWeights
from prophy.phenomena import PHENOMENA
from prophy.training.checkpoints import State
from prophy.training.counterfactual import Counterfactual
from prophy.training.objectives import NoiseLevels

BACKBONES = ("frozen", "lora", "trained")
COARSE_FORMS = ("relative", "bce")
OPTIMISERS = ("adamw", "muon")
DECAYS = ("constant", "linear", "cosine")
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class BranchShape:
    """The branch to build; see :class:`prophy.branch.ProPhyBranch`.

    Attributes:
        sites: blocks of the backbone that are copied.
        injections: those of them after which a residual is added; None: all.
        semantic_experts: E_s.
        refinement_experts: E_r.
        top_k: experts of a token.
        reference_grid: (T, H, W) of the basis maps.
        semantic: False leaves the Semantic Expert Block out: its basis maps are zero and it is not trained.
        refinement: False leaves the Refinement Expert Block out: its experts are zero and it is not trained.
        refinement_form: see :class:`prophy.branch.refinement.RefinementExpertBlock`.
    """

    sites: tuple[int, ...]
    semantic_experts: int = 32
    refinement_experts: int = 8
    top_k: int = 2
    reference_grid: tuple[int, int, int] = (5, 8, 8)
    semantic: bool = True
    refinement: bool = True
    injections: tuple[int, ...] | None = None
    refinement_form: str = "mixture"


@dataclass(frozen=True)
class OptimiserSettings:
    """How weights follow gradients.

    Attributes:
        kind: ``adamw`` (fused), or ``muon``: Muon for the matrices inside blocks and AdamW for the rest.
        rate: peak learning rate of AdamW.
        muon_rate: peak learning rate of Muon.
        backbone_share: of these rates, for the backbone or its LoRA.
        weight_decay: decoupled.
        clip: largest norm of the whole gradient.
        warm_up: steps of the linear rise.
        decay: ``constant``, or ``linear`` or ``cosine`` to zero at the last step.
    """

    kind: str = "adamw"
    rate: float = 2e-5
    muon_rate: float = 0.0
    backbone_share: float = 1.0
    weight_decay: float = 1e-2
    clip: float = 1.0
    warm_up: int = 500
    decay: str = "constant"

    def __post_init__(self) -> None:
        _check("optimiser", self.kind, OPTIMISERS)
        _check("decay", self.decay, DECAYS)
        if self.kind == "muon" and not self.muon_rate > 0:
            raise ValueError(f"muon_rate={self.muon_rate} must be above 0 for Muon to learn")

    def share_of_peak(self, step: int, steps: int) -> float:
        """Which share of the peak rates is used at ``step`` of ``steps``, from 0."""
        left = {
            "constant": 1.0,
            "linear": 1 - step / steps,
            "cosine": 0.5 * (1 + math.cos(math.pi * step / steps)),
        }[self.decay]
        return min((step + 1) / max(1, self.warm_up), 1.0) * left


@dataclass(frozen=True)
class Recipe:
    """What a training learns, and how. Where it runs, and on what, is not part of it.

    Attributes:
        base: hub id or folder of the base model; empty: the embedded one.
        branch: to train; None trains none.
        backbone: ``frozen``, adapted by ``lora``, or ``trained`` whole.
        lora_rank: of the adaptation, whose scale is 1.
        noise: how often each noise level is visited.
        losses: λ of eq. 6. Our terms are means where the paper's are sums.
        coarse: ``relative`` (eqs. 3-4) or ``bce``.
        align_background: see :func:`prophy.branch.losses.fine_align_loss`.
        counterfactual: see :mod:`prophy.training.counterfactual`.
        foreground: how much more the tokens with physics weigh in the diffusion loss; 0 weighs all alike.
        null_share: of the clips, whose caption is dropped: they train the unconditional pass, and no physics.
        steps: of the optimiser, in all.
        batch: clips in a step, over all processes and accumulated parts.
        accumulation: parts of a batch that are computed one after the other. Eqs. 3-4 compare clips within a part.
        optimiser: see there.
        ema: decay of the moving average of the trained weights, which is what is published.
        precision: of the computation; weights under training are float32.
        backbone_dtype: of a backbone that is not trained.
        checkpointing: compute activations again in the backward pass: slower, far smaller.
        seed: of the branch's start, the order of the clips, and the noise.

    Raises:
        ValueError: fields that contradict each other. One line.
    """

    base: str
    branch: BranchShape | None
    backbone: str = "frozen"
    lora_rank: int = 128
    noise: NoiseLevels = field(default_factory=NoiseLevels)
    losses: LossWeights = field(default_factory=LossWeights)
    coarse: str = "relative"
    align_background: float = 0.0
    counterfactual: Counterfactual = field(default_factory=Counterfactual)
    foreground: float = 0.0
    null_share: float = 0.1
    steps: int = 10_000
    batch: int = 32
    accumulation: int = 1
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    ema: float = 0.999
    precision: str = "bfloat16"
    backbone_dtype: str = "bfloat16"
    checkpointing: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        _check("backbone", self.backbone, BACKBONES)
        _check("coarse", self.coarse, COARSE_FORMS)
        _check("precision", self.precision, DTYPES)
        _check("backbone_dtype", self.backbone_dtype, DTYPES)
        for name in ("steps", "batch", "accumulation", "lora_rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.batch % self.accumulation:
            raise ValueError(f"batch={self.batch} does not divide into {self.accumulation} parts: change one of them")
        if self.branch is None and self.backbone == "frozen":
            raise ValueError("nothing to train: give the recipe a branch, or adapt or train the backbone")
        by_name = self.counterfactual.share > 0 or self.losses.routing > 0
        if by_name and (self.branch is None or not self.branch.refinement):
            raise ValueError("counterfactual routing and losses.routing need refinement experts: give the branch some")
        if by_name and self.branch.refinement_experts <= len(PHENOMENA):
            raise ValueError(
                f"branch.refinement_experts={self.branch.refinement_experts}: counterfactual routing and "
                f"losses.routing need one for each of {len(PHENOMENA)} phenomena and one for none: "
                f"{len(PHENOMENA) + 1} at least"
            )
        if self.counterfactual.share and self.backbone != "frozen":
            raise ValueError(
                "counterfactual routing shows, where an expert is muted, what the backbone does without the branch: "
                "set backbone='frozen', so that this is one thing all along"
            )
        if self.backbone == "trained" and self.backbone_dtype != "float32":
            raise ValueError("a trained backbone needs backbone_dtype='float32': small updates vanish in bfloat16")

    def record(self) -> dict[str, State]:
        """Plain values, as JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_record(cls, record: dict) -> Recipe:
        """The inverse of :meth:`record`.

        Raises:
            ValueError: a field that this release does not know, or lacks.
        """
        try:
            values = dict(record)
            branch = values.pop("branch")
            return cls(
                # records of before there was a choice name no form
                branch=None
                if branch is None
                else BranchShape(**{"refinement_form": "residual", **{k: _tuple(v) for k, v in branch.items()}}),
                noise=NoiseLevels(**values.pop("noise")),
                losses=LossWeights(**values.pop("losses")),
                counterfactual=Counterfactual(**values.pop("counterfactual", {})),
                optimiser=OptimiserSettings(**values.pop("optimiser")),
                **values,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"the recipe was written by another release ({error}): use that one") from error


def difference(one: Recipe, other: Recipe) -> dict[str, tuple]:
    """The fields in which two recipes differ, by dotted names, and both values."""
    return dict(_differences("", one, other))


def _differences(name: str, one: object, other: object):
    if is_dataclass(one) and type(one) is type(other):
        for f in fields(one):
            path = f"{name}.{f.name}" if name else f.name
            yield from _differences(path, getattr(one, f.name), getattr(other, f.name))
    elif one != other:
        yield name, (one, other)


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown: use {' or '.join(known)}")


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


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
    """ProPhy beside the embedded model, whose weights stay as they are; see ``tiny_branch`` for the reasons."""
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


def tiny_together() -> Recipe:
    """:func:`tiny`, and the backbone learns too, as it did when the embedded model was made."""
    return replace(tiny(), backbone="trained")


# --- the paper's ablations -------------------------------------------------------------------------------------------


def _adapted(full: Recipe) -> Recipe:
    return full if full.backbone == "trained" else replace(full, backbone="lora")


def without_branch(full: Recipe) -> Recipe:
    """The backbone adapted, or trained, alone."""
    return replace(_adapted(full), branch=None, losses=LossWeights(0.0, 0.0, 0.0))


def seb_only(full: Recipe) -> Recipe:
    """No Refinement Expert Block, nor its losses."""
    losses = replace(full.losses, fine_align=0.0, fine_balance=0.0)
    return replace(_adapted(full), branch=replace(full.branch, refinement=False), losses=losses)


def reb_only(full: Recipe) -> Recipe:
    """No Semantic Expert Block, nor its loss."""
    losses = replace(full.losses, coarse=0.0)
    return replace(_adapted(full), branch=replace(full.branch, semantic=False), losses=losses)


def bce(full: Recipe) -> Recipe:
    """The Semantic Expert Block learns each clip's labels by itself."""
    return replace(full, coarse="bce")


def align_only(full: Recipe) -> Recipe:
    """The refinement router is not balanced."""
    return replace(full, losses=replace(full.losses, fine_balance=0.0))


def balance_only(full: Recipe) -> Recipe:
    """The refinement router is not aligned."""
    return replace(full, losses=replace(full.losses, fine_align=0.0))


def _with_variants(base: Callable[[], Recipe], adapted: bool) -> dict[str, Callable[[], Recipe]]:
    single = ("lora", "lora_seb", "lora_reb") if adapted else ("alone", "seb", "reb")
    names = (*single, "bce", "align_only", "balance_only")
    variants = (without_branch, seb_only, reb_only, bce, align_only, balance_only)
    made = {base.__name__: base}
    for name, variant in zip(names, variants, strict=True):
        made[f"{base.__name__}_{name}"] = lambda variant=variant: variant(base())
    return made


#: every recipe by its name
RECIPES: dict[str, Callable[[], Recipe]] = {
    **_with_variants(wan_1_3b, adapted=True),
    **_with_variants(cogvideox_5b, adapted=True),
    **_with_variants(tiny, adapted=True),
    **_with_variants(tiny_together, adapted=False),
}


def recipe_named(name: str) -> Recipe:
    """Build a recipe.

    Raises:
        ValueError: no recipe of that name.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}: use one of {', '.join(RECIPES)}")
    return RECIPES[name]()
