"""Read clips as a player shows them, and write clips that browsers play.

The names below are found on first use: what generates or trains without a file of a clip needs no PyAV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prophy.video.reading import Clip, picture_size, read_video, sample_frames
    from prophy.video.source import UnreadableClip
    from prophy.video.writing import write_video

READING = "prophy-video-v3"  #: changes when the same file gives other frames: what was derived from them is then stale

__all__ = ["READING", "Clip", "UnreadableClip", "picture_size", "read_video", "sample_frames", "write_video"]

_FOUND_IN = {
    "prophy.video.reading": ("Clip", "picture_size", "read_video", "sample_frames"),
    "prophy.video.source": ("UnreadableClip",),
    "prophy.video.writing": ("write_video",),
}
_MODULE_OF = {name: module for module, names in _FOUND_IN.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'prophy.video' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
