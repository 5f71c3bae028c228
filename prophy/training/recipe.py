"""A recipe: everything that decides what a training learns, as frozen values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field

from prophy.branch.losses import LossWeights
from prophy.phenomena import PHENOMENA
from prophy.schema import (
    AtLeastNone,
    AtLeastOne,
    BatchSize,
    LearningRate,
    LossWeight,
    Seed,
    Share,
    ShareBelowOne,
    Width,
    check_fields,
)
from prophy.training.counterfactual import Counterfactual
from prophy.training.objectives import NoiseLevels

Part = TypeVar("Part")

BACKBONES = ("frozen", "lora", "trained")
COARSE_FORMS = ("relative", "bce")
OPTIMISERS = ("adamw", "muon")
DECAYS = ("constant", "linear", "cosine", "cool_down")
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class BranchShape:
    """The branch to build; see :class:`~prophy.branch.model.ProPhyBranch`.

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

    sites: tuple[AtLeastNone, ...]
    semantic_experts: Width = 32
    refinement_experts: Width = 8
    top_k: Width = 2
    reference_grid: tuple[Width, Width, Width] = (5, 8, 8)
    semantic: bool = True
    refinement: bool = True
    injections: tuple[AtLeastNone, ...] | None = None
    refinement_form: str = "mixture"

    def __post_init__(self) -> None:
        check_fields(self, "branch")


@dataclass(frozen=True)
class OptimiserSettings:
    """How weights follow gradients.

    Attributes:
        kind: ``adamw`` (fused), or ``muon``: Muon for the matrices inside blocks and AdamW for the rest.
        rate: peak learning rate of AdamW.
        muon_rate: peak learning rate of Muon.
        weight_decay: decoupled.
        clip: largest norm of the gradient of all that these settings are for.
        warm_up: steps of the linear rise.
        decay: ``constant``; or to zero at the last step ``linear``, ``cosine``, or ``cool_down``, linear over the last
            part of the steps and constant before.
        cool_down: share of the steps in which the rates of ``cool_down`` fall. Above 1 the peak is never reached: the
            rates start from ``1 / cool_down`` of it.
    """

    kind: str = "adamw"
    rate: LearningRate = 2e-5
    muon_rate: LearningRate = 0.0
    weight_decay: LossWeight = 1e-2
    clip: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    warm_up: AtLeastNone = 500
    decay: str = "constant"
    cool_down: Annotated[float, Field(gt=0, le=1e6)] = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "optimiser")
        _check("optimiser", self.kind, OPTIMISERS)
        _check("decay", self.decay, DECAYS)
        if self.kind == "muon" and not self.muon_rate > 0:
            raise ValueError(f"muon_rate={self.muon_rate} must be above 0 for Muon to learn")

    def share_of_peak(self, step: int, steps: int) -> float:
        """Which share of the peak rates is used at ``step`` of ``steps``, from 0."""
        risen = min((step + 1) / max(1, self.warm_up), 1.0)
        left = 1 - step / steps
        if self.decay == "cool_down":
            return min(risen, left / self.cool_down)
        return (
            risen
            * {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 + math.cos(math.pi * step / steps))}[self.decay]
        )


@dataclass(frozen=True)
class BackboneShape:
    """A backbone to train from nothing: the base's stock transformer class at this size.

    The base's autoencoder and text encoder decide its channels and the width of its text.

    Attributes:
        width: of the hidden states.
        heads: of every attention.
        layers: blocks.
        patch: latent cells of a token, (T, H, W).
    """

    width: Width = 256
    heads: Width = 4
    layers: Width = 8
    patch: tuple[Width, Width, Width] = (1, 1, 1)

    def __post_init__(self) -> None:
        check_fields(self, "scratch")
        if self.width % self.heads:
            raise ValueError(f"width={self.width} of the backbone does not divide among {self.heads} heads")


@dataclass(frozen=True)
class Recipe:
    """What a training learns, and how. Where it runs, and on what, is not part of it.

    Attributes:
        base: hub id or folder of the base model; empty: the embedded one.
        branch: to train; None trains none.
        backbone: ``frozen``, adapted by ``lora``, or ``trained`` whole.
        scratch: the backbone starts from nothing, at this size; None: from the base's weights.
        lora_rank: of the adaptation, whose scale is 1.
        noise: how often each noise level is visited.
        losses: λ of eq. 6. Our terms are means where the paper's are sums.
        coarse: ``relative`` (eqs. 3-4) or ``bce``.
        align_background: see :func:`prophy.branch.losses.fine_align_loss`.
        align_others: likewise.
        counterfactual: see :mod:`prophy.training.counterfactual`.
        foreground: how much more the tokens with physics weigh in the diffusion loss; 0 weighs all alike.
        event_weight: what the tokens of one phenomenon weigh there together, beside the 1 of the whole clip, however
            small it is: a ball is a thirtieth of its clip. It adds at most 10 to a token; 0 leaves it out.
        null_share: of the clips, whose caption is dropped: they train the unconditional pass, and no physics.
        latent_frames: only so many of each clip, from the first; 0: all. Stills (1) are a fifth of the work of the
            embedded model's clips, and enough to learn what things look like.
        stills: share of the steps that see only the first latent frame of their clips: most of what a caption asks for
            is in it. Video models are commonly trained so (Ho et al., 2022, "Video diffusion models").
        steps: of the optimiser, in all.
        batch: clips in a step, over all processes and accumulated parts.
        accumulation: parts of a batch that are computed one after the other. Eqs. 3-4 compare clips within a part.
        optimiser: of everything that is trained.
        backbone_optimiser: of the backbone or its LoRA, whose gradient is then clipped by itself; None: as all else.
        ema: decay of the moving average of the trained weights, which is what is published.
        precision: of the computation; weights under training are float32.
        backbone_dtype: of a backbone that is not trained.
        checkpointing: compute activations again in the backward pass: slower, far smaller.
        seed: of the weights' start, the order of the clips, and the noise.

    Raises:
        ValueError: fields that contradict each other. One line.
    """

    base: str
    branch: BranchShape | None
    backbone: str = "frozen"
    scratch: BackboneShape | None = None
    lora_rank: Width = 128
    noise: NoiseLevels = field(default_factory=NoiseLevels)
    losses: LossWeights = field(default_factory=LossWeights)
    coarse: str = "relative"
    align_background: LossWeight = 0.0
    align_others: LossWeight = 0.0
    counterfactual: Counterfactual = field(default_factory=Counterfactual)
    foreground: LossWeight = 0.0
    event_weight: LossWeight = 0.0
    null_share: Share = 0.1
    latent_frames: AtLeastNone = 0
    stills: Share = 0.0
    steps: AtLeastOne = 10_000
    batch: BatchSize = 32
    accumulation: BatchSize = 1
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    backbone_optimiser: OptimiserSettings | None = None
    ema: ShareBelowOne = 0.999
    precision: str = "bfloat16"
    backbone_dtype: str = "bfloat16"
    checkpointing: bool = True
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)
        _check("backbone", self.backbone, BACKBONES)
        _check("coarse", self.coarse, COARSE_FORMS)
        _check("precision", self.precision, DTYPES)
        _check("backbone_dtype", self.backbone_dtype, DTYPES)
        if self.batch % self.accumulation:
            raise ValueError(f"batch={self.batch} does not divide into {self.accumulation} parts: change one of them")
        if self.branch is None and self.backbone == "frozen":
            raise ValueError("nothing to train: give the recipe a branch, or adapt or train the backbone")
        if self.counterfactual.share > 0 or self.losses.routing > 0:
            if self.branch is None or not self.branch.refinement:
                raise ValueError(
                    "counterfactual routing and losses.routing need refinement experts: give the branch some"
                )
            if self.branch.refinement_experts <= len(PHENOMENA):
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
        if self.scratch is not None and self.backbone != "trained":
            raise ValueError(f"a backbone from scratch must learn: backbone={self.backbone!r} must be 'trained'")
        if self.backbone_optimiser is not None:
            if self.backbone == "frozen":
                raise ValueError("backbone_optimiser has nothing to train: the backbone is frozen")
            if self.backbone_optimiser.kind != self.optimiser.kind:
                raise ValueError(
                    f"optimiser.kind={self.optimiser.kind!r} and backbone_optimiser.kind="
                    f"{self.backbone_optimiser.kind!r} must be the same"
                )

    def optimisers(self) -> dict[str, OptimiserSettings]:
        """Of the branch and of the transformer, whether they are trained or not."""
        return {"branch": self.optimiser, "transformer": self.backbone_optimiser or self.optimiser}

    def shares_of_peak(self, step: int) -> dict[str, float]:
        """See :meth:`OptimiserSettings.share_of_peak`, of the branch and of the transformer."""
        return {part: settings.share_of_peak(step, self.steps) for part, settings in self.optimisers().items()}

    def continues(self, before: Recipe, step: int) -> bool:
        """Whether the first ``step`` steps are another recipe's too: only its end, or how the rates fall, differs."""
        if not difference(before, self).keys() <= _END:
            return False
        return all(self.shares_of_peak(at) == before.shares_of_peak(at) for at in range(step))

    def record(self) -> dict[str, Any]:
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
            if branch is not None:  # records of before there was a choice name no form
                branch = {"refinement_form": "residual", **branch}
            return cls(
                branch=_optional(BranchShape, branch),
                noise=NoiseLevels(**values.pop("noise")),
                losses=LossWeights(**values.pop("losses")),
                counterfactual=Counterfactual(**values.pop("counterfactual", {})),
                optimiser=_optimiser(values.pop("optimiser")),
                scratch=_optional(BackboneShape, values.pop("scratch", None)),
                backbone_optimiser=_optional(OptimiserSettings, values.pop("backbone_optimiser", None)),
                **values,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the recipe was written by another release ({error}): use that one") from error


#: fields that a run may change on its way, where the steps already made do not depend on them
_END = {"steps"} | {f"{part}.{name}" for part in ("optimiser", "backbone_optimiser") for name in ("decay", "cool_down")}


def _optional(kind: type[Part], record: dict | None) -> Part | None:
    return None if record is None else kind(**{name: _tuple(value) for name, value in record.items()})


def _optimiser(record: dict) -> OptimiserSettings:
    """Records of before there was ``backbone_optimiser`` hold a share of the rates for the backbone, which was 1."""
    values = dict(record)
    if values.pop("backbone_share", 1.0) != 1.0:
        raise TypeError("optimiser.backbone_share")
    return OptimiserSettings(**values)


def difference(one: Recipe, other: Recipe) -> dict[str, tuple]:
    """The fields in which two recipes differ, by dotted names, and both values."""
    return dict(_differences("", one, other))


def _differences(name: str, one: object, other: object) -> Iterator[tuple[str, tuple]]:
    if is_dataclass(one) and type(one) is type(other):
        for f in fields(one):
            path = f"{name}.{f.name}" if name else f.name
            yield from _differences(path, getattr(one, f.name), getattr(other, f.name))
    elif one != other:
        yield name, (one, other)


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown: use {' or '.join(known)}")


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
