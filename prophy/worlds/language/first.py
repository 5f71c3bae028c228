"""The grammar of the first generation: fixed sentences that always name colours and places, bit for bit as shipped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prophy.worlds.captions import SETTINGS, caption, clause
from prophy.worlds.language.grammar import Grammar, Telling, Told
from prophy.worlds.placed import Placed


class FirstGrammar(Grammar):
    """The sentences of :mod:`prophy.worlds.captions`, which the first generation of the embedded model knows."""

    name = "first"

    def tell(self, events: Sequence[Placed], setting: str, rng: np.random.Generator, held_out: bool = False) -> Telling:
        clauses = [(clause(e.phenomenon, e.variant, e.colours, rng, held_out), e.place) for e in events]
        text = caption(clauses, setting, rng)
        told = tuple(
            Told(e.phenomenon, e.variant, e.place, e.colours, number=2 * ("two" in words.split()))
            for e, (words, _) in zip(events, clauses, strict=True)
        )
        says_setting = any(words and text.endswith(words) for words in SETTINGS[setting])
        return Telling(text, told, setting if says_setting else None)
