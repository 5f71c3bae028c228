"""The grammar of the second generation: plain words, as visitors type them.

One caption has one *stance*: whole sentences ("a red ball bounces while ice melts"), things ("a video of a bouncing
ball and melting ice"), bare verbs ("let a ball bounce") or orders ("pour juice into a cup"). Colours, places and
settings may be left open; two events without places are told from left to right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prophy.worlds.language import words
from prophy.worlds.language.clauses import Clause, can_be_twins, clause, pick
from prophy.worlds.language.grammar import Grammar, Telling, Told, words_of
from prophy.worlds.language.morphology import with_articles
from prophy.worlds.placed import Placed

LONGEST = 46  #: words of a caption; the embedded model reads 47

_STANCES = {"sentence": 0.49, "phrase": 0.37, "causing": 0.08, "order": 0.06}
_UNSEEN_STANCES = {"sentence": 0.53, "phrase": 0.41, "causing": 0.06}  # orders have too few unseen wordings
_OPENINGS = {
    "sentence": words.SENTENCE_OPENINGS,
    "phrase": words.PHRASE_OPENINGS,
    "causing": words.CAUSING_OPENINGS,
    "order": words.ORDER_OPENINGS,
}
_OPENING_SHARE = {"sentence": 0.22, "phrase": 0.5, "causing": 1.0, "order": 1.0}
#: how often a setting is said; who does not ask for the night gets a bright scene
_SETTING_SHARE = {"day": 0.35, "studio": 0.35, "dusk": 0.8, "night": 1.0}
#: how two events get their places
_ORDERS = {"both": 0.52, "one": 0.1, "order": 0.2, "beside": 0.1, "relation": 0.08}


#: Words, and the places of the events that they tell.
_Segment = tuple[str, tuple[str, ...]]


def _draw(shares: dict[str, float], rng: np.random.Generator) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))


@dataclass(frozen=True)
class _Part:
    """One event, its words, and the words for its place."""

    event: Placed
    clause: Clause
    said: tuple[str | None, ...]
    place: str = ""

    @property
    def told(self) -> Told:
        """The event as far as its words tell it: a clause may leave out a colour that could be said."""
        colours = tuple(colour if i in self.clause.colours else None for i, colour in enumerate(self.said))
        return Told(self.event.phenomenon, self.event.variant, self.event.place, colours, self.clause.number)

    def text(self, rng: np.random.Generator, front: bool) -> str:
        """The event with its place: before everything, after everything, or after the subject."""
        if not self.place:
            return self.clause.text
        if front:
            return f"{self.place}{pick(',|', rng)} {self.clause.text}"
        if self.clause.subject and rng.random() < 0.3:
            return f"{self.clause.subject} {self.place} {self.clause.predicate}"
        return f"{self.clause.text} {self.place}"


class PlainGrammar(Grammar):
    """Short and long, with and without colours and places, in the words that strangers use."""

    name = "plain"

    def tell(self, events: Sequence[Placed], setting: str, rng: np.random.Generator, held_out: bool = False) -> Telling:
        while True:
            telling = _tell(tuple(events), setting, rng, held_out)
            if len(telling.about) <= LONGEST:
                return telling


def _tell(events: tuple[Placed, ...], setting: str, rng: np.random.Generator, held_out: bool) -> Telling:
    stance = _draw(_UNSEEN_STANCES if held_out else _STANCES, rng)
    opening = _opening(stance, rng, held_out)
    front = 0.35 if stance == "sentence" or not opening else 0.0  # "show me on the left a ball" is not English
    if len(events) == 1:
        parts, segments = _alone(events[0], stance, front, rng, held_out)
    elif not held_out and stance in ("sentence", "phrase") and _are_twins(events) and rng.random() < 0.7:
        parts, segments = _twins(events, stance, rng)
    else:
        parts, segments = _together(events, stance, front, rng, held_out)
    said = setting if rng.random() < _SETTING_SHARE[setting] else None
    by_place = {part.event.place: part.told for part in parts}
    text, about = _dress(opening, segments, stance, said, rng)
    return Telling(text, tuple(by_place[event.place] for event in events), said, about)


def _said_colours(colours: tuple[str, ...], rng: np.random.Generator) -> tuple[str | None, ...]:
    """Most captions name every colour; some none, and a few only one of two."""
    chance = rng.random()
    if chance < 0.72:
        return colours
    if chance < 0.77 and len(colours) == 2:
        kept = int(rng.integers(2))
        return tuple(colour if i == kept else None for i, colour in enumerate(colours))
    return (None,) * len(colours)


def _part(event: Placed, stance: str, rng: np.random.Generator, held_out: bool, place: str = "") -> _Part:
    said = _said_colours(event.colours, rng)
    made = clause(event.phenomenon, event.variant, said, stance, rng, held_out)
    return _Part(event, made, said, place)


def _alone(
    event: Placed, stance: str, front: float, rng: np.random.Generator, held_out: bool
) -> tuple[list[_Part], list[_Segment]]:
    silent = event.place == "centre" and rng.random() < 0.85
    part = _part(event, stance, rng, held_out, "" if silent else pick(words.PLACES[event.place], rng))
    return [part], [(part.text(rng, rng.random() < front), (event.place,))]


def _are_twins(events: tuple[Placed, ...]) -> bool:
    """Whether two events are one scene twice, which one plural can tell."""
    first, second = ((e.phenomenon, e.variant) for e in events)
    return first == second and can_be_twins(*first)


def _twins(events: tuple[Placed, ...], stance: str, rng: np.random.Generator) -> tuple[list[_Part], list[_Segment]]:
    """One scene twice: "two red candles burn side by side"."""
    left, right = sorted(events, key=lambda event: event.place)
    said = [_said_colours(event.colours, rng) for event in (left, right)]
    colours = tuple(colour for one in said for colour in one) if all(said) else (None, None)
    made = clause(left.phenomenon, left.variant, said[0], stance, rng, twins=colours)
    parts = [_Part(event, made, one) for event, one in zip((left, right), said, strict=True)]
    return parts, [(f"{made.text} {pick(words.BOTH_PLACES, rng)}", (left.place, right.place))]


def _together(
    events: tuple[Placed, ...], stance: str, front: float, rng: np.random.Generator, held_out: bool
) -> tuple[list[_Part], list[_Segment]]:
    """Two events in one caption, so that it is clear which of them is on the left."""
    left, right = sorted(events, key=lambda event: event.place)
    way = _draw(_ORDERS, rng)
    turned = way in ("both", "one", "relation") and rng.random() < 0.5
    first, second = (right, left) if turned else (left, right)
    placed = [pick(words.PLACES[e.place], rng) if way in ("both", "one") else "" for e in (first, second)]
    if way == "one":
        placed[rng.integers(2)] = ""
    as_thing = way == "relation" or (way == "beside" and rng.random() < 0.5)
    parts = [
        _part(first, stance, rng, held_out, placed[0]),
        _part(second, "phrase" if as_thing else stance, rng, held_out, placed[1]),
    ]
    in_front = way == "both" and rng.random() < front
    a, b = ((part.text(rng, in_front), (part.event.place,)) for part in parts)
    joint = pick(words.PHRASE_JOINTS if stance == "phrase" else words.SENTENCE_JOINTS, rng)
    if way == "relation":
        joint = pick(words.RIGHT_OF if turned else words.LEFT_OF, rng)
    elif way == "beside":
        joint = pick(words.BESIDE_PHRASE if as_thing else words.BESIDE_SENTENCE, rng)
    elif stance == "sentence" and second.phenomenon == "explosion" and rng.random() < 0.4:
        joint = pick(words.LATER_JOINTS, rng)  # the one event that comes later than others
    elif stance == "sentence" and (chance := rng.random()) < 0.14:
        if chance < 0.08:
            return parts, [(pick("while|as", rng), ()), a, (",", ()), b]
        joint = pick(words.LATER_JOINTS, rng)  # asked for one after the other, though here both begin at once
    return parts, [a, (joint, ()), b]


def _opening(stance: str, rng: np.random.Generator, held_out: bool) -> str:
    """What people say before a wish; often nothing."""
    if rng.random() >= _OPENING_SHARE[stance]:
        return ""
    seen, unseen = _OPENINGS[stance]
    return pick(f"{seen}|{unseen}" if held_out else seen, rng)


def _dress(
    opening: str, body: list[_Segment], stance: str, setting: str | None, rng: np.random.Generator
) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Add the setting and what people say around a wish; drop articles now and then; tidy."""
    before, after = opening, ""
    if setting is not None:
        where = pick(words.SETTINGS[setting], rng)
        if stance in ("sentence", "phrase") and not opening and rng.random() < 0.12:
            before = pick(words.SETTING_OPENINGS[setting], rng)
        elif not opening and rng.random() < 0.25:
            before = where + pick(",|", rng)
        else:
            after = where if rng.random() < 0.75 else f", {where}"
    closing = pick(words.CLOSINGS, rng) if rng.random() < 0.08 else ""
    segments = [(before, ()), *body, (after, ()), (closing, ())]
    segments = [(with_articles(" ".join(text.split())), about) for text, about in segments]
    if rng.random() < 0.1:
        segments = [(re.sub(r"\b(a|an|the) ", "", text), about) for text, about in segments]
    text = " ".join(text for text, _ in segments)
    text = re.sub(r",(\s*[,.])+", ",", " ".join(text.split()))
    return re.sub(r"\s+([,.])", r"\1", text).strip(" ,"), tuple(
        about for text, about in segments for _ in words_of(text)
    )
