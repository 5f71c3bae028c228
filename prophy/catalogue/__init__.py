"""Facts of published models, read before any weights are: configurations, clip sizes, defaults (no torch)."""

from prophy.catalogue.cogvideox import COGVIDEOX
from prophy.catalogue.families import FamilyFacts, register
from prophy.catalogue.wan import WAN

for _facts in (WAN, COGVIDEOX):
    register(_facts)

__all__ = ["COGVIDEOX", "WAN", "FamilyFacts", "register"]
