"""Synthetic physics clips with exact masks, captions and the simulator's state."""

from prophy.worlds.event import EVENTS
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

__all__ = [
    "COLOURS",
    "EVENTS",
    "HELD_OUT_PAIRS",
    "SPLITS",
    "Placed",
    "Scenario",
    "Stage",
    "WorldClip",
    "render",
    "sample_clip",
    "sample_scenario",
]
