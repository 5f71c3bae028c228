"""Synthetic physics clips with exact masks, captions and the simulator's state."""

from prophy.worlds.event import EVENTS
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

FPS, FRAMES, SIZE = Stage().fps, Stage().frames, Stage().height  #: of the default stage

__all__ = [
    "COLOURS",
    "EVENTS",
    "FPS",
    "FRAMES",
    "HELD_OUT_PAIRS",
    "SIZE",
    "SPLITS",
    "Placed",
    "Scenario",
    "Stage",
    "WorldClip",
    "render",
    "sample_clip",
    "sample_scenario",
]
