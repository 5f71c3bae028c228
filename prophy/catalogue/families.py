"""The registry of backbone families, as far as they are known without torch.

A family is named by the class of its transformer. What needs torch is in :mod:`prophy.backbones`, one file a family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prophy.catalogue.limits import ClipRules
from prophy.catalogue.published import PublishedModel, add_published

#: From the configurations of transformer and autoencoder, and the most tokens that the tokenizer gives, the rules of a
#: clip. What a configuration leaves out is what its class takes by default.
ClipRulesOf = Callable[[Mapping[str, Any], Mapping[str, Any], float], ClipRules]


@dataclass(frozen=True)
class FamilyFacts:
    """What is known of a backbone family before any weights or libraries are opened.

    Attributes:
        transformer_class: class name of its transformer, which names the family.
        clip_rules: what a model of it asks of a clip.
        published: its published models, by the short names that commands take.
        blocks: what the transformer calls its blocks.
    """

    transformer_class: str
    clip_rules: ClipRulesOf
    published: Mapping[str, PublishedModel] = field(default_factory=dict)
    blocks: str = "blocks"


_FACTS: dict[str, FamilyFacts] = {}


def register(facts: FamilyFacts) -> None:
    """Make a family known to whatever describes models; :func:`prophy.backbones.backbone.register` calls it too."""
    _FACTS[facts.transformer_class] = facts
    add_published(facts.published)


def is_registered(transformer_class: str) -> bool:
    """Whether a family has a transformer of this class."""
    return transformer_class in _FACTS


def facts_of(transformer_class: str) -> FamilyFacts:
    """The family that a transformer's class belongs to.

    Raises:
        ValueError: not registered; the message lists those that are.
    """
    if transformer_class not in _FACTS:
        raise ValueError(f"unknown backbone family {transformer_class!r}: use one of {', '.join(_FACTS)}")
    return _FACTS[transformer_class]
