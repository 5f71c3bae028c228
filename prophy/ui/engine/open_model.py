"""The one model whose weights are in memory: opened when a generation first needs it, in the profile it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from prophy.ui.engine.gpu import is_lent
from prophy.ui.engine.models import ModelCard

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Opened(NamedTuple):
    """A model in memory, and the memory profile that was asked for."""

    card: ModelCard
    pipeline: DiffusionPipeline
    profile: str


class OpenModel:
    """Holds it. Only the job whose turn it is may open another.

    Args:
        open_pipeline: opens a model in a memory profile; default: :func:`prophy.generation.pipelines.load`.
    """

    def __init__(self, open_pipeline: Callable[[ModelCard, str], DiffusionPipeline] | None = None) -> None:
        self._open_pipeline = open_pipeline or _load
        self._opened: Opened | None = None

    @property
    def name(self) -> str | None:
        """Of its card; None while no model is open."""
        return None if self._opened is None else self._opened.card.name

    @property
    def opened(self) -> Opened:
        """The model, of a job that has opened it."""
        if self._opened is None:
            raise RuntimeError("no model is open")
        return self._opened

    def pipeline_of(self, card: ModelCard) -> DiffusionPipeline | None:
        """The pipeline of a model, if it is the open one."""
        opened = self._opened
        return opened.pipeline if opened is not None and opened.card is card else None

    def open(self, card: ModelCard, profile: str, on_opening: Callable[[str], None]) -> DiffusionPipeline:
        """Open a model in a profile; another one's weights are let go of first.

        Args:
            card: of the model.
            profile: by name.
            on_opening: told the model's name, if its weights have to be read.
        """
        if (pipeline := self.pipeline_of(card)) is None:
            on_opening(card.name)
            if self._opened is not None:
                from prophy.memory.offload import collect

                self._opened = None
                collect()
            pipeline = self._open_pipeline(card, profile)
        elif self.opened.profile != profile:
            from prophy.generation.pipelines import place

            self._opened = None  # a profile that does not fit leaves the weights scattered
            place(pipeline, profile, clip=card.made.clip)
        self._opened = Opened(card, pipeline, profile)
        return pipeline


def _load(card: ModelCard, profile: str) -> DiffusionPipeline:
    from prophy.generation.pipelines import load

    source = card.source
    device = {"device": "cuda"} if is_lent() else {}  # which torch does not see where it is only lent
    return load(source.base, branch=source.branch, loras=source.loras, profile=profile, clip=card.made.clip, **device)
