"""Read clips as a player shows them, and write clips that browsers play."""

from prophy.video.reading import Clip, picture_size, read_video, sample_frames
from prophy.video.source import UnreadableClip
from prophy.video.writing import write_video

__all__ = ["Clip", "UnreadableClip", "picture_size", "read_video", "sample_frames", "write_video"]
