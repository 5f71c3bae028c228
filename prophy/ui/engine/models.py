"""The models that the app was started with: what the page may say of each before any is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from prophy.assets import default_model
from prophy.catalogue.describe import ModelConfig, describe_model, hub_id, is_local
from prophy.catalogue.experts import ExpertShares, read_experts
from prophy.catalogue.limits import ClipSize, GenerationDefaults
from prophy.catalogue.lora import LoraSource
from prophy.schema import read_json

EMBEDDED = "embedded"  #: on the command line, the model that this repository ships


@dataclass(frozen=True)
class ModelSource:
    """A model as it was asked for.

    Attributes:
        model: a diffusers folder or hub id; None for the embedded model.
        branch: the branch's folder or hub id; None for the model's own, if it has one.
        clip: what to make; None for what the model is recommended for.
        loras: of the backbone, as :meth:`prophy.catalogue.lora.LoraSource.parse` reads them.
    """

    model: str | Path | None = None
    branch: str | Path | None = None
    clip: ClipSize | None = None
    loras: tuple[str, ...] = ()

    @property
    def base(self) -> str | Path:
        """The model's folder or hub id."""
        return default_model() if self.model in (None, EMBEDDED) else hub_id(self.model)


@dataclass(frozen=True)
class ModelCard:
    """A model by its small files: nothing of it is open.

    Attributes:
        source: where it is.
        model_config: its configurations.
        made: the clip, steps and guidance that it makes unless told otherwise.
    """

    source: ModelSource
    model_config: ModelConfig
    made: GenerationDefaults

    @classmethod
    def of(cls, source: ModelSource) -> ModelCard:
        """Read a model's small files.

        Raises:
            ValueError: no such model, branch or LoRA, or a clip that it cannot make. One line.
            FileNotFoundError: no such LoRA.
        """
        for lora in source.loras:
            LoraSource.parse(lora).file()
        described = describe_model(source.base, source.branch)
        made = described.defaults or GenerationDefaults()
        if (clip := source.clip) is not None:
            made = replace(made, width=clip.width, height=clip.height, frames=clip.frames)
        card = cls(source, described, made)
        _ = card.grid  # refuses a clip that the model cannot make
        _ = card.experts  # refuses a damaged file
        return card

    @property
    def name(self) -> str:
        """The folder's name or the hub id, as runs record it."""
        base = self.source.base
        return Path(base).resolve().name if is_local(base) else str(base)

    @property
    def is_embedded(self) -> bool:
        """Whether it is the model that this repository ships."""
        return Path(self.source.base).resolve() == default_model().resolve()

    @property
    def has_branch(self) -> bool:
        """Whether there is a branch to attach, so that there will be routing to show."""
        return self.model_config.branch is not None

    @property
    def semantic_experts(self) -> int:
        """How many; 0 without a branch."""
        return self._branch_setting("num_semantic_experts")

    @property
    def refinement_experts(self) -> int:
        """How many; 0 without a branch."""
        return self._branch_setting("num_refinement_experts")

    @property
    def grid(self) -> tuple[int, int, int]:
        """Latent frames, token rows and columns of its clips."""
        made = self.made
        return self.model_config.rules.grid(made.frames, made.height, made.width).shape

    @cached_property
    def experts(self) -> ExpertShares | None:
        """What its experts were measured to do; None if nobody measured it, or there is no branch."""
        return read_experts(self.source.base, self.source.branch) if self.has_branch else None

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every word a word-level model knows, sorted; empty for a model that spells."""
        base = self.source.base
        return _vocabulary(Path(base) / "tokenizer" / "tokenizer.json") if is_local(base) else ()

    def _branch_setting(self, name: str) -> int:
        return int((self.model_config.branch or {}).get(name, 0))


def cards_of(sources: Sequence[ModelSource]) -> tuple[ModelCard, ...]:
    """The cards of one or more models; no two have the same name.

    Raises:
        ValueError: as :meth:`ModelCard.of`, or two models of one name.
    """
    cards = tuple(map(ModelCard.of, sources))
    names = [card.name for card in cards]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two models are called {name}: rename the folder of one")
    return cards


def _vocabulary(path: Path) -> tuple[str, ...]:
    """The words in a word-level ``tokenizer.json``, sorted; none if it is another kind or is not there."""
    try:
        document = read_json(path)
        if document["model"]["type"] != "WordLevel":
            return ()
        special = {token["content"] for token in document.get("added_tokens", ())}
        words = [word for word in document["model"]["vocab"] if word not in special]
        return tuple(sorted(words)) if all(isinstance(word, str) for word in words) else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()
