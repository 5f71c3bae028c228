"""Synthetic physics clips with exact masks, captions and the simulator's state."""

from prophy.worlds.event import EVENTS
from prophy.worlds.pairs import TwinPair, twin_pairs
from prophy.worlds.sample import (
    HELD_OUT_PAIRS,
    SPLITS,
    Placed,
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
    "Placed",
    "Scenario",
    "Stage",
    "TwinPair",
    "WorldClip",
    "WorldSet",
    "render",
    "sample_clip",
    "sample_scenario",
    "twin_pairs",
]
