"""The languages of captions: which words tell what a clip shows."""

from prophy.worlds.language.first import FirstGrammar
from prophy.worlds.language.grammar import Grammar, Telling, Told
from prophy.worlds.language.plain import PlainGrammar

FIRST: Grammar = FirstGrammar()  #: of the shipped first generation of the embedded model
PLAIN: Grammar = PlainGrammar()  #: plain words, as visitors type them
#: by name
GRAMMARS: dict[str, Grammar] = {grammar.name: grammar for grammar in (FIRST, PLAIN)}

__all__ = ["FIRST", "GRAMMARS", "PLAIN", "Grammar", "Telling", "Told"]
