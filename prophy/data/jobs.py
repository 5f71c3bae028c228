"""Jobs of annotation and of the cache: which clips, cut how, by which worker; and their flags (no torch)."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from prophy.catalogue.limits import ClipSize
from prophy.data.folder import read_folder
from prophy.data.records import ClipRecord, Filters, apply_filters, random_subset
from prophy.data.wisa import read_wisa
from prophy.files import file_sha256, sha256
from prophy.flags import only_set, seeds, whole
from prophy.grid import TokenGrid
from prophy.phenomena import IDS
from prophy.schema import FrameRate, Width, check_fields
from prophy.video import READING
from prophy.worlds import Stage, WorldClip, WorldSet, sample_scenario
from prophy.worlds.scope import SCOPE

log = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Geometry:
    """The piece of each video that is annotated, and the token grid of the diffusion model it will train.

    Attributes:
        width: pixels.
        height: pixels.
        frames: video frames, ``1 + 4k``.
        fps: frames a second.
        cell: pixels on a side of one token.

    Raises:
        ValueError: sizes that do not divide into tokens, or a rate that is not positive.
    """

    width: Width = 832
    height: Width = 480
    frames: Width = 49
    fps: FrameRate = 16.0
    cell: Width = 16

    def __post_init__(self) -> None:
        check_fields(self)
        self.grid  # noqa: B018 (refuses what does not divide)

    @classmethod
    def of_recipe(cls, recipe: Mapping[str, Any], path: Path) -> Geometry:
        """The one that a recipe of annotations names.

        Raises:
            ValueError: it names none, or an impossible one; ``path`` is its file.
        """
        try:
            return cls(**recipe["geometry"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged (geometry: {error}): annotate the clips again") from None

    @property
    def grid(self) -> TokenGrid:
        return TokenGrid.from_video(self.frames, self.height, self.width, self.cell)

    @classmethod
    def of_worlds(cls, stage: Stage = Stage(), cell: int = 8) -> Geometry:
        """Of clips of the synthetic worlds; the default is the embedded model's."""
        return cls(stage.width, stage.height, stage.frames, stage.fps, cell)


WORLDS = Geometry.of_worlds()  #: of the synthetic worlds and the embedded model


@dataclass(frozen=True)
class Job:
    """One clip to annotate, or to encode.

    Attributes:
        id: unique among the jobs.
        caption: of the clip.
        phenomena: what it is labelled with, at least one.
        read: gives its frames, uint8 ``(F, H, W, 3)``; raises ValueError where they cannot be had.
        masks: gives where each phenomenon acts, bool ``(F, H, W)`` by id, where that is known: in the worlds.
        source: gives the digest of what the frames are made from, the video's file or the world's scenario; None: the
            frames themselves are digested.
        worlds: the set that a clip of the worlds is of.
    """

    id: str
    caption: str
    phenomena: tuple[str, ...]
    read: Callable[[], np.ndarray]
    masks: Callable[[], dict[str, np.ndarray]] | None = None
    source: Callable[[], str] | None = None
    worlds: WorldSet | None = None

    def content(self) -> str:
        """A digest that changes when what is seen in the clip does; empty where that cannot be read."""
        try:
            return sha256(self.read().tobytes()) if self.source is None else self.source()
        except (ValueError, OSError):
            return ""

    @property
    def folder(self) -> str:
        """A name for its folder: readable, and safe whatever the id holds."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(self.id).stem).strip("-.")[:48]
        return f"{readable or 'clip'}-{sha256(self.id.encode(errors='replace'))[:10]}"


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 0) of ``count``: every ``count``-th item."""

    index: int
    count: int

    @classmethod
    def of(cls, text: str | None, environment: Mapping[str, str]) -> Shard:
        """From ``3/16``, counted from 1, and what ``torchrun`` puts into the environment, which divides that further.

        Raises:
            ValueError: not of that form, or out of range.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"--shard {text} is not one part of N: use 1/16 to 16/16")
        part, parts = int(match[1]), int(match[2])
        rank, world = int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
        return cls((part - 1) * world + rank, parts * world)

    def take(self, items: Sequence[Item]) -> list[Item]:
        """The shard's own, in their order."""
        return list(items[self.index :: self.count])

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


def jobs_of(records: Iterable[ClipRecord], geometry: Geometry) -> tuple[list[Job], int]:
    """Jobs for the records of a data set, in their order; and how many were left out: no video, or no phenomenon."""
    from prophy.video import sample_frames

    jobs, left_out = [], 0
    for record in records:
        if record.video is None or not record.labels:
            left_out += 1
            continue
        read = partial(sample_frames, record.video, geometry.frames, geometry.fps, geometry.height, geometry.width)
        jobs.append(Job(record.id, record.caption, record.labels, read, source=partial(video_digest, record.video)))
    return jobs, left_out


def video_digest(video: Path) -> str:
    """Changes when the file's content does, or how its frames are shown.

    Raises:
        OSError: the file cannot be read.
    """
    return sha256(f"{READING} {file_sha256(video)}")


def jobs_of_worlds(count: int, split: str, names: tuple[str, ...], first: int = 0, stage: Stage = Stage()) -> list[Job]:
    """Jobs for synthetic clips ``first, first + 1 …``.

    Raises:
        ValueError: unknown split, or phenomena without a world.
    """

    worlds = WorldSet(names, split, stage)

    @lru_cache(maxsize=1)  # whoever reads the frames may want the masks next
    def clip(seed: int) -> WorldClip:
        return worlds.clip(seed)

    def read(seed: int) -> np.ndarray:
        return clip(seed).frames

    def masks(seed: int) -> dict[str, np.ndarray]:
        return clip(seed).masks

    jobs = []
    for seed in range(first, first + count):
        scenario, caption = sample_scenario(seed, split, names)
        shown = tuple(dict.fromkeys(event.phenomenon for event in scenario.events))
        about = sha256(f"{split} {seed} {scenario} {stage}")
        frames, where, source = partial(read, seed), partial(masks, seed), partial(str, about)
        jobs.append(Job(f"{split}-{seed:06d}", caption, shown, frames, where, source, worlds))
    return jobs


def add_data(parser: argparse.ArgumentParser) -> None:
    """The flags that say which clips; :func:`read_jobs` reads them."""
    parser.add_argument("--data", required=True, choices=("wisa", "folder", "worlds"), help="what the clips are")
    parser.add_argument("--path", type=Path, help="wisa: metadata; folder: the clips with their table of captions")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="wisa: folder of the videos")
    parser.add_argument("--sample", type=whole, metavar="N", help="a random subset; the paper's is 20000")
    parser.add_argument("--seed", type=seeds, default=0, help="of the subset (default: 0)")
    parser.add_argument("--min-duration", type=float, metavar="S", help="seconds")
    parser.add_argument("--min-width", type=float, metavar="PX", help="pixels")
    parser.add_argument("--max-text-boxes", type=float, metavar="N", help="boxes of written text in the picture")
    parser.add_argument("--clips", type=whole, default=64, help="worlds: how many (default: 64)")
    parser.add_argument("--split", default="test", help="worlds: of which split (default: test)")
    parser.add_argument(
        "--phenomena",
        metavar="IDS",
        help="worlds: which, with commas between, or all (default: those the embedded model knows)",
    )


def add_shard(parser: argparse.ArgumentParser) -> None:
    """The flag that divides the work among processes; :meth:`Shard.of` reads it."""
    parser.add_argument(
        "--shard", metavar="I/N", help="only this part of the work, from 1/N to N/N; torchrun divides it further"
    )


def add_geometry(parser: argparse.ArgumentParser) -> None:
    """The flags that say which piece of each video."""
    parser.add_argument(
        "--size", metavar="WxHxF", help="of the clips that will train (default: 832x480x49; worlds: 64x64x17)"
    )
    parser.add_argument("--fps", type=float, help="frames a second of those clips (default: 16; worlds: 8)")
    parser.add_argument(
        "--cell", type=whole, help="pixels on a side of the diffusion model's token (default: 16; worlds: 8)"
    )


def stage_of(size: str | None, fps: float | None) -> Stage:
    """The stage that ``--size`` and ``--fps`` say; what is not given is the default stage's.

    Raises:
        ValueError: a size or a rate that the worlds cannot do.
    """
    default = Stage()
    if fps is not None and not float(fps).is_integer():
        raise ValueError(f"--fps {fps:g}: the worlds take a whole number of frames a second")
    rate = default.fps if fps is None else int(fps)
    return Stage.parse(default.size if size is None else size, rate)


def scope_of(names: str | None) -> tuple[str, ...]:
    """The ids that ``--phenomena`` means: ``all``, names with commas between, or by default the embedded model's."""
    if names is None:
        return SCOPE
    return IDS if names == "all" else tuple(dict.fromkeys(name.strip() for name in names.split(",")))


def read_jobs(arguments: argparse.Namespace) -> tuple[list[Job], int, Geometry]:
    """Jobs, how many clips were left out, and the geometry, as the flags say.

    Raises:
        ValueError, OSError: an input is missing or does not fit.
    """

    if arguments.data == "worlds":
        for name in ("path", "videos", "sample", "min_duration", "min_width", "max_text_boxes"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} changes nothing in the worlds: leave it out")
        stage = stage_of(arguments.size, arguments.fps)
        geometry = Geometry.of_worlds(stage, **only_set(arguments, "cell"))
        jobs = jobs_of_worlds(arguments.clips, arguments.split, scope_of(arguments.phenomena), stage=stage)
        return jobs, 0, geometry
    if arguments.phenomena is not None:
        raise ValueError(f"--phenomena changes nothing in --data {arguments.data}: leave it out")
    if arguments.path is None:
        raise ValueError(f"--data {arguments.data} needs --path")
    sizes = {}
    if arguments.size is not None:
        clip = ClipSize.parse(arguments.size)
        sizes = {"width": clip.width, "height": clip.height, "frames": clip.frames}
    geometry = Geometry(**sizes, **only_set(arguments, "fps", "cell"))
    if arguments.data == "wisa":
        reading = read_wisa(arguments.path, videos=arguments.videos)
    elif arguments.videos is not None:
        raise ValueError("--videos changes nothing in a folder of clips: leave it out")
    else:
        reading = read_folder(arguments.path)
    filters = Filters(
        min_duration=arguments.min_duration, min_width=arguments.min_width, max_text_boxes=arguments.max_text_boxes
    )
    if reading.faults:
        log.warning(
            "left out %d of %d rows, such as %s: prophy data report counts them all",
            len(reading.faults),
            reading.rows,
            reading.faults[0],
        )
    records, _ = apply_filters(reading.say_notes().records, filters)
    if arguments.sample is not None:
        records = random_subset(records, arguments.sample, arguments.seed)
    jobs, left_out = jobs_of(records, geometry)
    return jobs, left_out + len(reading.faults), geometry
