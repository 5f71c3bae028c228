"""Read clips as a player shows them, and write clips that browsers play."""

from prophy.video.reading import Clip, picture_size, read_video, sample_frames
from prophy.video.source import UnreadableClip
from prophy.video.writing import write_video

READING = "prophy-video-v2"  #: changes when the same file gives other frames: what was derived from them is then stale

__all__ = ["READING", "Clip", "UnreadableClip", "picture_size", "read_video", "sample_frames", "write_video"]
