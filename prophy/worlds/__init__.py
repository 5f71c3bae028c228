"""Synthetic physics clips with exact masks, captions and the simulator's state."""

from prophy.worlds.drawn import Drawn, refuse_redrawn
from prophy.worlds.event import EVENTS
from prophy.worlds.pairs import TwinPair, twin_pairs
from prophy.worlds.placed import Placed
from prophy.worlds.sample import (
    HELD_OUT_PAIRS,
    SPLITS,
    Scenario,
    WorldClip,
    render,
    sample_clip,
    sample_scenario,
)
from prophy.worlds.stage import COLOURS, Stage
from prophy.worlds.twins import TWINS, Broken
from prophy.worlds.world_set import WorldSet

__all__ = [
    "COLOURS",
    "EVENTS",
    "HELD_OUT_PAIRS",
    "SPLITS",
    "TWINS",
    "Broken",
    "Drawn",
    "Placed",
    "Scenario",
    "Stage",
    "TwinPair",
    "WorldClip",
    "WorldSet",
    "refuse_redrawn",
    "render",
    "sample_clip",
    "sample_scenario",
    "twin_pairs",
]
