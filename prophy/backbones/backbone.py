"""What a backbone family tells everything outside the branch: its classes, how its pipeline calls the transformer.

:class:`prophy.branch.family.Family` is what the branch itself asks. One object answers both, in one file a family.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from diffusers import DiffusionPipeline, ModelMixin
from torch import nn

from prophy.branch.family import FAMILIES, Family, family_of
from prophy.branch.family import register as register_family
from prophy.catalogue.families import FamilyFacts
from prophy.catalogue.families import register as register_facts
from prophy.catalogue.limits import ClipRules, ClipSize


@dataclass(frozen=True)
class StepInputs:
    """What is alive while one call of a transformer is computed.

    Attributes:
        arguments: of the call, by name.
        kept: what the stock pipeline holds besides: the latent, the scheduler's predictions, the other prompt.
    """

    arguments: dict[str, Any]
    kept: list[torch.Tensor] = field(default_factory=list)


class Backbone(Family, Protocol):
    """A backbone family. One module of this package implements it for each, and :func:`register` makes it known.

    Attributes:
        facts: what is known of it without torch.
        transformer_class: of its transformers; its name is the family's name.
        stock_pipeline_class: the text-to-video pipeline whose folders are opened, and whose LoRA files are written.
        pipeline_class: the same with a branch beside the transformer.
        lora_targets: linear layers that LoRA adapts: attention and feed-forward of every block, by the ends of their
            names.
        passes_together: whether one call of the transformer makes the conditional and the unconditional pass.

    A family may also have ``plain_attention``, an attention processor as plain matrix products, ``from_scratch``,
    which builds a small transformer to train from nothing, and ``self_attentions`` and ``cross_attentions``, the layers
    in which its tokens attend to each other and to the prompt, with ``positions`` and ``rotated``, by which the former
    place queries and keys: see those in :mod:`prophy.backbones.wan`.
    """

    facts: FamilyFacts
    transformer_class: type[ModelMixin]
    stock_pipeline_class: type[DiffusionPipeline]
    pipeline_class: type[DiffusionPipeline]
    passes_together: bool

    @property
    def lora_targets(self) -> Sequence[str]: ...

    def step_inputs(
        self,
        transformer: nn.Module,
        rules: ClipRules,
        clip: ClipSize,
        pipeline_config: Mapping[str, Any],
        device: torch.device | str,
    ) -> StepInputs:
        """Zeros of the shapes and dtypes with which the stock pipeline calls its transformer.

        Args:
            transformer: on any device.
            rules: of the model.
            clip: what is being made.
            pipeline_config: the pipeline's settings besides its parts.
            device: where to make them.

        Raises:
            ValueError: see :meth:`prophy.catalogue.limits.ClipRules.check`.
        """


def register(backbone: Backbone) -> Backbone:
    """Make a family known, to the branch and to all that opens, plans, trains and publishes models."""
    register_facts(backbone.facts)
    register_family(backbone)
    return backbone


def backbone_of(transformer: nn.Module | str) -> Backbone:
    """The family of a transformer, or of one by the name of its class.

    Raises:
        ValueError: not registered; the message lists those that are.
    """
    return cast(Backbone, family_of(transformer if isinstance(transformer, str) else type(transformer).__name__))


def backbones() -> list[Backbone]:
    """Every registered family."""
    return [cast(Backbone, family) for family in FAMILIES.values()]


def token_patch(transformer: ModelMixin) -> int:
    """Latent cells on a side of one of the transformer's tokens."""
    return backbone_of(transformer).facts.clip_rules(transformer.config, {}, math.inf).patch


def is_compiled(transformer: nn.Module) -> bool:
    """Whether torch.compile has compiled it, or blocks of it."""
    return any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in transformer.modules())
