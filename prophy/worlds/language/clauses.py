"""One event in words: a saying of its scene, inflected, with the colours that are to be said."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from prophy.worlds.language.grammar import expand
from prophy.worlds.language.morphology import inflect, plural
from prophy.worlds.language.scene import REFERENCE, VERB, Scene, Thing, kind_of
from prophy.worlds.language.scenes import SCENES
from prophy.worlds.language.words import ADVERBS, AGENTS, COLOUR_WORDS, DETERMINERS, NUMBERS, SHADES

#: How a clause stands in its caption -> its forms, each with its share.
STANCES: dict[str, dict[str, float]] = {
    "sentence": {"present": 0.46, "progressive": 0.22, "past": 0.09, "future": 0.05, "phase": 0.06, "agent": 0.12},
    "phrase": {"name": 0.47, "participle": 0.31, "relative": 0.09, "doing": 0.13},
    "causing": {"bare": 1.0},
    "order": {"deed": 1.0},
}
_ACTS = frozenset({"present", "progressive", "past", "future", "phase", "participle", "relative", "bare"})
_DEEDS = frozenset({"agent", "doing", "deed"})


def pick(options: str, rng: np.random.Generator) -> str:
    """One of several wordings separated by bars."""
    return expand(f"[{options}]", rng)


@dataclass(frozen=True)
class Clause:
    """One event in words.

    Attributes:
        subject: its subject with its determiner; empty for deeds and names.
        predicate: the rest.
        colours: which of the event's colours the words say.
        number: how many things the words count; 0 for none.
    """

    subject: str
    predicate: str
    colours: frozenset[int]
    number: int

    @property
    def text(self) -> str:
        return f"{self.subject} {self.predicate}"


@dataclass
class _Speaker:
    """Fills one saying with words; remembers what it has said."""

    scene: Scene
    colours: tuple[str | None, ...]  # as they are to be said; None where they are left open
    twins: tuple[str | None, ...] | None  # the colour of each of two like things, told as one plural
    rng: np.random.Generator
    said: set[int] = field(default_factory=set)
    nouns: dict[str, str] = field(default_factory=dict)

    def _adjective(self, thing: Thing) -> str:
        return pick(thing.adjectives, self.rng) if thing.adjectives and self.rng.random() < 0.2 else ""

    def noun(self, thing: Thing) -> str:
        """A name of the thing; like things of one sentence mostly get the same."""
        if thing.nouns in self.nouns and self.rng.random() < 0.8:
            return self.nouns[thing.nouns]
        options = thing.nouns.split("|")
        chosen = options[0 if self.rng.random() < 0.3 else self.rng.integers(len(options))]
        self.nouns.setdefault(thing.nouns, chosen)
        return chosen

    def colour(self, name: str | None) -> str:
        """A word for a colour, empty for None."""
        if name is None:
            return ""
        options = COLOUR_WORDS[name].split("|")
        word = options[0 if self.rng.random() < 0.6 else self.rng.integers(len(options))]
        return f"{pick(SHADES, self.rng)} {word}" if self.rng.random() < 0.05 else word

    def two(self, thing: Thing, colours: tuple[str | None, ...]) -> str:
        """Two like things in their colours, told from left to right."""
        noun, adjective = self.noun(thing), self._adjective(thing)
        a, b = (self.colour(colour) for colour in colours)
        if not a or not b:
            return f"{pick(DETERMINERS['two'], self.rng)} {adjective} {plural(noun)}"
        if colours[0] == colours[1]:
            return f"{pick(DETERMINERS['two'], self.rng)} {adjective} {a} {plural(noun)}"
        count = pick("two|2|a pair of", self.rng)
        return pick(
            f"a {a} {noun} and a {b} {noun}|a {a} {noun} and a {b} one|a {a} and a {b} {noun}"
            f"|{a} and {b} {plural(noun)}"
            f"|{count} {adjective} {plural(noun)}, {a} and {b},|{count} {plural(noun)}, one {a} and one {b},"
            f"|{count} {plural(noun)}, one is {a} and one is {b},|{count} {plural(noun)} in {a} and {b}"
            f"|{count} {plural(noun)} of different [colour|color], {a} and {b},",
            self.rng,
        )

    def thing(self, key: str, before: str, determined: bool) -> str:
        """A thing with its determiner, colour and adjective; ``before`` is a word that goes inside."""
        thing = self.scene.things[key]
        if thing.kind == "pair":
            self.said.update(i for i in (0, 1) if None not in self.colours)
            return self.two(thing, self.colours if None not in self.colours else (None, None))
        if self.twins is not None and thing.kind == "one":
            if thing.colour is not None and None not in self.twins:
                self.said.add(thing.colour)
            return _inside(self.two(thing, self.twins if thing.colour is not None else (None, None)), before)
        word = ""
        if thing.colour is not None and self.colours[thing.colour] is not None:
            word = self.colour(self.colours[thing.colour])
            self.said.add(thing.colour)
        noun, adjective = self.noun(thing), self._adjective(thing)
        if not determined:
            return f"{before} {word} {noun}"
        determiner = pick(DETERMINERS[thing.kind], self.rng)
        if thing.another and self.rng.random() < 0.2:
            determiner, adjective = pick("another|a second|the other", self.rng), ""
            if self.rng.random() < 0.3:
                determiner, noun = ("a" if word else "another"), "one"
        if word and self.rng.random() < 0.1:
            spelling = pick("colour|color", self.rng)
            after = pick(
                f"that is {word}|of {word} {spelling}|of {spelling} {word}|which is {word}|in {word}", self.rng
            )
            if self.rng.random() < 0.25:
                return f"{determiner} {before} {adjective} {word} {pick('coloured|colored', self.rng)} {noun}"
            return f"{determiner} {before} {adjective} {noun} {after}"
        order = (before, adjective, word) if self.rng.random() < 0.7 else (adjective, before, word)
        return " ".join((determiner, *order, noun))

    def fill(self, text: str) -> str:
        """Replace every reference to a thing."""
        return REFERENCE.sub(lambda m: self.thing(m[3], m[1].replace("_", " "), m[2] == "@"), text)


def _inside(plural_thing: str, before: str) -> str:
    """A word put before the nouns of two like things: "two red balls" becomes "two bouncing red balls"."""
    counted = re.match(r"(two|2|both|the two|a pair of|a couple of|a)\b", plural_thing)
    count = counted[0] if counted else ""
    return f"{count} {before} {plural_thing.removeprefix(count)}"


def _conjugate(text: str, form: str, finite: str) -> str:
    return VERB.sub(lambda m: inflect(m[2], form if m[1] == "~" else finite), text)


@cache
def can_be_twins(phenomenon: str, variant: str) -> bool:
    """Whether one plural can tell two of a scene: some act and some name have one thing that can be counted."""
    scene = SCENES[phenomenon, variant]
    return {"act", "name"} <= {kind_of(saying) for saying in scene.sayings if scene.can_be_twins(saying)}


def clause(
    phenomenon: str,
    variant: str,
    colours: tuple[str | None, ...],
    stance: str,
    rng: np.random.Generator,
    held_out: bool = False,
    twins: tuple[str | None, ...] | None = None,
) -> Clause:
    """Put one event into words.

    Args:
        phenomenon: its id.
        variant: its scene.
        colours: its colours, None where the words leave one open; a scene may leave out more.
        stance: one of :data:`STANCES`.
        rng: chooses the words.
        held_out: a saying, or a noun with a verb, that is never used otherwise.
        twins: the colours of two like events told as one plural; None for one event.

    Raises:
        KeyError: a scene without words, or an unknown stance.
    """
    scene = SCENES[phenomenon, variant]
    forms = STANCES[stance]
    while True:
        form = str(rng.choice(list(forms), p=list(forms.values())))
        kind = "act" if form in _ACTS else "deed" if form in _DEEDS else "name"
        unseen = held_out and rng.random() < 0.6
        pool = [s for s in (scene.held_out if unseen else scene.sayings) if kind_of(s) == kind]
        if not pool:
            continue
        saying = expand(pool[rng.integers(len(pool))], rng)
        if twins is not None and not scene.can_be_twins(saying):
            continue
        speaker = _Speaker(scene, colours, twins, rng)
        made = _speak(speaker, saying, form)
        first_thing = list(speaker.nouns.items())[:1]
        verbs = re.findall(r"~(\w+)", saying)
        novel = unseen or any(scene.is_held_out_pair(*one, verb) for one in first_thing for verb in verbs)
        if novel == held_out:
            return made


def _speak(speaker: _Speaker, saying: str, form: str) -> Clause:
    """Inflect a saying whose choices are made."""
    rng = speaker.rng
    at = saying.find("~")
    subject, predicate = (saying[:at], saying[at:]) if at > 0 else ("", saying)
    many = subject.startswith("+") or speaker.twins is not None
    if reference := REFERENCE.match(subject):
        many = many or speaker.scene.things[reference[3]].kind in ("many", "pair")
    now, then = ("plural", "past plural") if many else ("third", "past")
    subject = speaker.fill(_conjugate(subject.removeprefix("+"), now, now)).strip()
    if form == "agent":
        many = rng.random() < 0.4
        now = "plural" if many else "third"
        subject = pick(AGENTS[many], rng)
        form = "past" if rng.random() < 0.1 else "progressive" if rng.random() < 0.25 else "present"
        then = "past plural" if many else "past"
    be = inflect("be", "plural" if many else "third") if subject != "i" else "am"
    if form == "name":
        predicate = _conjugate(predicate, "base", now)
    elif form == "present":
        predicate = _conjugate(predicate, now, now)
    elif form == "past":
        predicate = _conjugate(predicate, then, then)
    elif form == "progressive":
        predicate = f"{be} {_conjugate(predicate, 'ing', now)}"
    elif form == "future":
        predicate = f"{pick(f'will|will|{be} going to', rng)} {_conjugate(predicate, 'base', now)}"
    elif form == "phase":
        verb, shape = pick("start to;base|start;ing|begin to;base|begin;ing|keep;ing|continue to;base", rng).split(";")
        first, _, rest = verb.partition(" ")
        predicate = f"{inflect(first, now)} {rest} {_conjugate(predicate, shape, now)}"
    elif form in ("participle", "doing"):
        predicate = _conjugate(predicate, "ing", now)
        if form == "participle" and rng.random() < 0.6:
            predicate = predicate.removeprefix("being ")
    elif form == "relative":
        shape = pick(f"that {_conjugate(predicate, now, now)}|that {be} {_conjugate(predicate, 'ing', now)}", rng)
        predicate = shape.replace("that", pick("that|which|what", rng), 1)
    else:  # bare, deed
        predicate = _conjugate(predicate, "base", now)
    if form in ("present", "progressive", "participle", "bare", "deed") and "," not in saying and rng.random() < 0.06:
        predicate += f" {pick(ADVERBS, rng)}"
    predicate = speaker.fill(predicate)
    text = f"{subject} {predicate}"
    number = 2 * bool(NUMBERS & set(re.findall(r"\w+", text)))
    return Clause(subject, predicate, frozenset(speaker.said), number)
