"""What a grammar of captions is: scenes in, words out, and a note of what the words say and what they leave open."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prophy.worlds.placed import Placed

_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(template: str, rng: np.random.Generator) -> str:
    """Make every choice ``[a|b]`` of a template; choices may hold choices."""
    while match := _CHOICE.search(template):
        options = match[1].split("|")
        template = template[: match.start()] + options[rng.integers(len(options))] + template[match.end() :]
    return template


@dataclass(frozen=True)
class Told:
    """One event, as far as a caption tells it.

    Attributes:
        phenomenon: its id.
        variant: which of the phenomenon's scenes.
        place: ``left``, ``right`` or ``centre``. It is always settled: one event without a place is in the centre, two
            are told from left to right, and where only one of two has a place, the other is on the other side.
        colours: the event's colours in order; None where the caption leaves one open.
        number: how many things of its kind the caption counts; 0 where it does not count.
    """

    phenomenon: str
    variant: str
    place: str
    colours: tuple[str | None, ...]
    number: int = 0


@dataclass(frozen=True)
class Telling:
    """A caption and what it says.

    Attributes:
        text: what a person would type.
        events: as told, in the order of the scenario.
        setting: a name of :data:`prophy.worlds.stage.BACKGROUNDS`; None where the caption leaves it open.
        about: for each word of the text, see :func:`words_of`, the places of the events that it helps to tell; empty
            for a grammar that does not know.
    """

    text: str
    events: tuple[Told, ...]
    setting: str | None
    about: tuple[tuple[str, ...], ...] = ()


def words_of(text: str) -> list[str]:
    """The words and numbers of a text, lower-case, without punctuation: what the embedded model reads."""
    return re.findall(r"[a-z0-9]+", text.lower())


class Grammar(ABC):
    """A way to put scenes into words.

    Attributes:
        name: what the command line calls it.
    """

    name: str

    @abstractmethod
    def tell(self, events: Sequence[Placed], setting: str, rng: np.random.Generator, held_out: bool = False) -> Telling:
        """Put a scene into words.

        Args:
            events: one event, or two in different places.
            setting: a name of :data:`prophy.worlds.stage.BACKGROUNDS`.
            rng: chooses the words.
            held_out: use only wordings that are never used otherwise; the words themselves are the same.
        """
