"""How the words for one scene of the worlds are written down: its things by their many names, and what they do.

A saying is one of three, told apart by where its first verb stands:

- an *act*, ``@ball ~bounce [up and down|]``: a subject and what it does;
- a *deed*, ``~pour @liquid into @vessel``: what somebody does, or is told to do;
- a *name*, ``bouncing@ball``: the event as a thing.

``[a|b]`` picks one. ``~bounce`` takes the form that the sentence needs, ``=bounce`` is finite in every sentence.
``@ball`` is a thing with its determiner, ``$ball`` one without; a word may stand before either and goes inside:
``bouncing@ball`` is "a bouncing red ball". A leading ``+`` marks a subject that is plural by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

REFERENCE = re.compile(r"([\w-]*)([@$])(\w+)")  #: to a thing: the word before it, with or without determiner, its key
VERB = re.compile(r"([~=])(\w+)")  #: its kind, its base form


@dataclass(frozen=True)
class Thing:
    """Something that captions mention.

    Attributes:
        nouns: its names, the plainest first, separated by bars.
        adjectives: what it may be called besides, separated by bars.
        colour: which of the event's colours it has; None if it has none of them.
        kind: ``one``, ``mass`` (water), ``many`` (drops) or ``pair`` (two things in the event's two colours).
        another: whether it is the second of two like things: "another ball", "a blue one".
    """

    nouns: str
    adjectives: str = ""
    colour: int | None = None
    kind: str = "one"
    another: bool = False


@dataclass(frozen=True)
class Scene:
    """The words for one scene.

    Attributes:
        things: by the key that sayings use.
        sayings: the sentences and names that training sees.
        held_out: those it never sees; at least two acts.
    """

    things: dict[str, Thing]
    sayings: tuple[str, ...]
    held_out: tuple[str, ...]

    @cached_property
    def verbs(self) -> tuple[str, ...]:
        """The verbs of the scene in the order of its sayings, each once."""
        found = re.findall(r"~(\w+)", " ".join((*self.sayings, *self.held_out)))
        return tuple(dict.fromkeys(found))

    def is_held_out_pair(self, nouns: str, noun: str, verb: str) -> bool:
        """Whether training never sees this noun with this verb: one pair in four, none with the plainest of either.

        Args:
            nouns: the names of the thing, as in ``Thing.nouns``.
            noun: one of them.
            verb: one of :attr:`verbs`.

        Raises:
            ValueError: another noun or verb.
        """
        i, j = nouns.split("|").index(noun), self.verbs.index(verb)
        return i > 0 and j > 0 and (i + j) % 4 == 3 and verb != "be"

    def can_be_twins(self, saying: str) -> bool:
        """Whether a saying tells two such scenes when its one thing is put into the plural."""
        keys = [match[3] for match in REFERENCE.finditer(saying)]
        return len(keys) == 1 and self.things[keys[0]].kind == "one" and "$" not in saying and "=" not in saying


def kind_of(saying: str) -> str:
    """Whether a saying is an ``act``, a ``deed`` or a ``name``: by where its first verb stands."""
    if "~" not in saying:
        return "name"
    return "deed" if saying.lstrip("[").startswith("~") else "act"
