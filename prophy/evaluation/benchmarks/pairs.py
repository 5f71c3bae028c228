"""Pairs of a public benchmark: folders of videos, some of which obey physics while the others break one thing.

The layout is that of the LikePhys benchmark (arXiv 2510.11512), as downloaded::

    FOLDER/ball_drop_videos/subgroup_000/valid_00.mp4
    FOLDER/ball_drop_videos/subgroup_000/over_bounce_00.mp4

Every valid video of a subgroup is compared with every impossible one of it. The captions are not in the folder; they
are given as a JSON object, one for each scenario.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prophy.catalogue.limits import ClipSize
from prophy.evaluation.measures.preference import Pair
from prophy.schema import read_json
from prophy.video import UnreadableClip, read_video, sample_frames

VALID = "valid"
_SCENARIO = re.compile(r"(?P<name>[a-z0-9_]+)_videos")
_VIDEO = re.compile(r"(?P<kind>[a-z0-9_]+)_\d+")


@dataclass(frozen=True)
class Subgroup:
    """The videos of one scene.

    Attributes:
        scenario: such as ``ball_drop``.
        name: of the subgroup.
        valid: the videos that obey physics.
        impossible: by what they break, such as ``over_bounce``.
    """

    scenario: str
    name: str
    valid: tuple[Path, ...]
    impossible: dict[str, tuple[Path, ...]]


@dataclass(frozen=True)
class PairFolder:
    """A benchmark's videos with their captions.

    Attributes:
        subgroups: in the order of their names.
        captions: by scenario.
    """

    subgroups: tuple[Subgroup, ...]
    captions: dict[str, str]

    @property
    def scenarios(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.scenario for one in self.subgroups))

    def pairs(self, clip: ClipSize) -> Iterator[Pair]:
        """Every valid video beside every impossible one, cut and resized to one size.

        The frames are spread evenly over each video, the first and the last among them, as the benchmark takes them.

        Raises:
            prophy.video.source.UnreadableClip: a video that cannot be read, or holds one frame only.
        """
        for one in self.subgroups:
            valid = [_read(path, clip) for path in one.valid]
            for kind, paths in one.impossible.items():
                for path in paths:
                    impossible = _read(path, clip)
                    for frames in valid:
                        group, law = f"{one.scenario}/{one.name}", f"{one.scenario}: {kind}"
                        yield Pair(group, law, self.captions[one.scenario], frames, impossible)


def read_pair_folder(folder: Path, captions: Path) -> PairFolder:
    """Find a benchmark's videos; none is opened.

    Args:
        folder: as downloaded.
        captions: a JSON object of a caption for each scenario.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: a folder, a video or a caption that does not fit; one line that names it.
    """
    folder, captions = Path(folder), Path(captions)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: give the benchmark's, with its *_videos folders")
    scenarios = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    subgroups = tuple(subgroup for path in scenarios for subgroup in _scenario(path))
    if not subgroups:
        raise ValueError(f"{folder} holds no SCENARIO_videos/SUBGROUP/*.mp4: give the benchmark's own folder")
    said = _captions(captions)
    if missing := [one.scenario for one in subgroups if one.scenario not in said]:
        raise ValueError(f"{captions} has no caption for {missing[0]}: give one for each scenario")
    return PairFolder(subgroups, said)


def _scenario(folder: Path) -> Iterator[Subgroup]:
    named = _SCENARIO.fullmatch(folder.name)
    if named is None:
        raise ValueError(f"{folder} is not named SCENARIO_videos: move it out of the benchmark's folder")
    for path in sorted(one for one in folder.iterdir() if one.is_dir()):
        kinds: dict[str, list[Path]] = {}
        for video in sorted(path.glob("*.mp4")):
            of_kind = _VIDEO.fullmatch(video.stem)
            if of_kind is None:
                raise ValueError(f"{video} is not named KIND_00.mp4, as valid_00.mp4 is")
            kinds.setdefault(of_kind["kind"], []).append(video)
        valid = kinds.pop(VALID, [])
        if not valid or not kinds:
            raise ValueError(f"{path} has no {'impossible' if valid else 'valid'} video: a pair needs one of each")
        yield Subgroup(named["name"], path.name, tuple(valid), {kind: tuple(found) for kind, found in kinds.items()})


def _captions(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give a JSON object of a caption for each scenario")
    try:
        said = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): give an object of a caption for each scenario") from error
    if not isinstance(said, dict) or not all(isinstance(text, str) and text.strip() for text in said.values()):
        raise ValueError(f"{path} is no JSON object of captions: give one for each scenario")
    return said


def _read(path: Path, clip: ClipSize) -> np.ndarray:
    """Frames spread evenly over a video, uint8 ``(F, H, W, 3)``."""
    whole = read_video(path)
    if len(whole.frames) < 2:
        raise UnreadableClip(path, "holds one frame: a law needs a clip")
    fps = whole.fps * (clip.frames - 1) / (len(whole.frames) - 1)
    return sample_frames(path, clip.frames, fps, clip.height, clip.width)
