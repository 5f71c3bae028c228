"""Inflections of the English words that captions use: regular rules and the irregular words among ours."""

from __future__ import annotations

import re

FORMS = ("base", "third", "plural", "past", "past plural", "ing")  #: of a verb

_BE = {"base": "be", "third": "is", "plural": "are", "past": "was", "past plural": "were", "ing": "being"}

#: past tense of the irregular verbs
_PAST = {
    "become": "became",
    "begin": "began",
    "bend": "bent",
    "blow": "blew",
    "break": "broke",
    "burst": "burst",
    "catch": "caught",
    "come": "came",
    "cut": "cut",
    "fall": "fell",
    "fling": "flung",
    "fly": "flew",
    "freeze": "froze",
    "get": "got",
    "give": "gave",
    "go": "went",
    "grow": "grew",
    "hang": "hung",
    "hit": "hit",
    "hold": "held",
    "keep": "kept",
    "leave": "left",
    "let": "let",
    "light": "lit",
    "lose": "lost",
    "make": "made",
    "meet": "met",
    "put": "put",
    "rise": "rose",
    "run": "ran",
    "send": "sent",
    "set": "set",
    "shake": "shook",
    "shine": "shone",
    "shoot": "shot",
    "shrink": "shrank",
    "sink": "sank",
    "spin": "spun",
    "spread": "spread",
    "spring": "sprang",
    "strike": "struck",
    "swing": "swung",
    "take": "took",
    "throw": "threw",
}

_SHORT_SYLLABLE = re.compile(r"[^aeiou]*[aeiou][bdgklmnprt]")  # hop, drip, spin: the last letter doubles


def _stem(verb: str) -> str:
    """The verb as it stands before -ed and -ing: a short syllable doubles its last letter."""
    doubles = _SHORT_SYLLABLE.fullmatch(verb) or verb in ("begin", "occur", "overlap")
    return verb + verb[-1] if doubles else verb


def inflect(verb: str, form: str) -> str:
    """One form of a verb.

    Args:
        verb: its base form, one word.
        form: one of :data:`FORMS`; the two plurals differ from the base and the past of "be" alone.

    Raises:
        ValueError: unknown form.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}: use one of {', '.join(FORMS)}")
    if verb == "be":
        return _BE[form]
    if form in ("base", "plural"):
        return verb
    if form == "third":
        if re.search(r"(s|x|z|ch|sh|o)$", verb):
            return f"{verb}es"
        return re.sub(r"(?<=[^aeiou])y$", "ie", verb) + "s"
    if form == "ing":
        if verb.endswith("ie"):
            return f"{verb[:-2]}ying"
        silent = re.search(r"[^eoy]e$", verb)
        return f"{verb[:-1] if silent else _stem(verb)}ing"
    if verb in _PAST:
        return _PAST[verb]
    if verb.endswith("e"):
        return f"{verb}d"
    if re.search(r"[^aeiou]y$", verb):
        return f"{verb[:-1]}ied"
    return f"{_stem(verb)}ed"


def plural(noun: str) -> str:
    """The plural of a noun phrase without determiner: "block of ice" gives "blocks of ice"."""
    head, of, rest = noun.partition(" of ")
    if re.search(r"(s|x|z|ch|sh)$", head):
        head += "es"
    else:
        head = re.sub(r"(?<=[^aeiou])y$", "ie", head) + "s"
    return head + of + rest


def with_articles(text: str) -> str:
    """``text`` with "an" before a vowel and "a" elsewhere."""
    return re.sub(r"\b(a)n?(?= \w)", lambda m: m[1] + "n" * _starts_with_a_vowel(text[m.end() + 1 :]), text)


def _starts_with_a_vowel(text: str) -> bool:
    return re.match(r"(?!one\b|uni|us[ei])[aeiou]", text) is not None
