"""Annotating many clips with several workers: how clips are shared, what is done, what was skipped and why.

A worker's clips follow from its shard alone, so workers never talk to each other. Each annotated clip is a folder that
appears file by file with its targets last: where there are targets, the clip is done. ``clip.json`` says of what: a
clip whose video or labels are others now is done anew, another caption is noted, and what is the same is left alone.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from prophy import phenomena
from prophy.annotation.annotator import Annotator
from prophy.annotation.config import PROMPT_VERSION
from prophy.annotation.record import TARGETS
from prophy.data.jobs import Geometry, Job, Shard
from prophy.data.tables import read_rows
from prophy.files import exclusive, visible, write_text
from prophy.schema import read_json, read_object
from prophy.worlds import Drawn

log = logging.getLogger(__name__)

CLIPS, RECIPE, SKIPPED = "clips", "recipe.json", "skipped.jsonl"
PREVIEW, ABOUT = "clip.mp4", "clip.json"  #: of a clip's folder, beside the annotation
_PREVIEW_SIDE = 256  # pixels, at most
_HOPELESS = 10  # clips skipped from the start, none done: something is wrong with all of them


@dataclass(frozen=True)
class Outcome:
    """What a worker did.

    Attributes:
        annotated: clips, now.
        before: clips that were done when it began.
        skipped: clips that cannot be annotated, now and before; ``skipped.jsonl`` has their reasons.
        changed: ids of those annotated now whose annotation was of another video or of other labels.
        recaptioned: ids of those done before that have another caption now.
        foreign: folders of clips that are not asked for, of all workers; nothing reads them.
    """

    annotated: int
    before: int
    skipped: int
    changed: tuple[str, ...] = ()
    recaptioned: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClipInputs:
    """What an annotation was made of; ``clip.json`` in its folder.

    Attributes:
        id: of the clip.
        caption: shown beside it; no target depends on it.
        phenomena: that the model was asked about.
        content: see :meth:`prophy.data.jobs.Job.content`; empty in folders of older releases.
        drawn: of a clip of the worlds, pictures and machine of its :class:`prophy.worlds.drawn.Drawn`; empty in folders
            of older releases.
    """

    id: str
    caption: str
    phenomena: tuple[str, ...]
    content: str = ""
    drawn: str = ""

    @classmethod
    def of(cls, job: Job) -> ClipInputs:
        """As the clip is now."""
        drawn = None if job.worlds is None else Drawn.by(job.worlds)
        noted = "" if drawn is None else f"{drawn.pictures} {drawn.machine}"
        return cls(job.id, job.caption, tuple(job.phenomena), job.content(), noted)

    @classmethod
    def read(cls, folder: Path) -> ClipInputs | None:
        """Of a finished clip's folder; None where there are no targets, or nothing says of what."""
        if not (folder / TARGETS).exists():
            return None
        try:
            about = read_json(folder / ABOUT)
            noted = (str(about.get(name, "")) for name in ("content", "drawn"))
            return cls(about["id"], about["caption"], tuple(about["phenomena"]), *noted)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Into a clip's folder."""
        write_text(folder / ABOUT, json.dumps(asdict(self), ensure_ascii=False) + "\n", shared=True)

    def targets_fit(self, before: ClipInputs | None) -> bool:
        """Whether targets made of ``before`` are those of this clip; see :meth:`redrawn`."""
        if before is None or self.redrawn(before):
            return False
        return self.content == before.content != "" and self.phenomena == before.phenomena

    def redrawn(self, before: ClipInputs) -> bool:
        """Whether the worlds draw it otherwise now, as far as two machines compare."""
        (pictures, _, machine), (then, _, there) = self.drawn.partition(" "), before.drawn.partition(" ")
        return machine == there and pictures != then


@exclusive("annotating")
def annotate_all(annotator: Annotator, jobs: Sequence[Job], out: Path, geometry: Geometry, shard: Shard) -> Outcome:
    """Annotate a shard of the clips; those done before are not done again unless their video or labels changed.

    Args:
        annotator: for all of them.
        jobs: of all workers, in the same order for each.
        out: folder of the annotations, shared by the workers.
        geometry: of the clips.
        shard: which of them are this worker's.

    Raises:
        ValueError: ``out`` holds annotations made otherwise, or none of the first clips can be annotated.
        OSError: a file cannot be written, such as on a full disk; finished clips are kept.
    """
    out = Path(out)
    own = shard.take(jobs)
    _claim(out, annotator, geometry)
    known = {row.id: row.content for row in _skipped(out)}
    todo: list[tuple[Job, ClipInputs]] = []
    changed, recaptioned = [], []
    before = 0
    for job in tqdm(own, "compare", unit="clip", delay=2, leave=False):
        folder, now = out / CLIPS / job.folder, ClipInputs.of(job)
        then = ClipInputs.read(folder)
        if now.targets_fit(then):
            before += 1
            if then is not None and now.caption != then.caption:
                replace(now, drawn=then.drawn).write(folder)
                recaptioned.append(job.id)
        elif job.id not in known or known[job.id] != now.content:
            todo.append((job, now))
            changed += [job.id] if then is not None else []
    skipped_before = len(own) - len(todo) - before
    done = skipped = 0
    with tqdm(total=len(own), initial=len(own) - len(todo), desc=f"annotate {shard}", unit="clip") as bar:
        for job, inputs in todo:
            try:
                _annotate_one(annotator, job, inputs, out / CLIPS / job.folder, geometry)
            except ValueError as error:
                skipped += 1
                reason = " ".join(str(error).split())
                log.warning("skipped %s: %s", job.id, reason)
                _append(out / SKIPPED, {"id": job.id, "reason": reason, "content": inputs.content})
                if not done and skipped == _HOPELESS:
                    raise ValueError(
                        f"none of the first {skipped} clips can be annotated, the last because: {reason}"
                    ) from error
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise OSError(
                        error.errno,
                        f"no room left in {out}: make room and run the same command again, {done + before} finished "
                        "clips are kept",
                    ) from error
                raise
            else:
                done += 1
            bar.update()
            bar.set_postfix(skipped=skipped + skipped_before, refresh=False)
    asked = {job.folder for job in jobs}
    foreign = [path.name for path in visible(out / CLIPS) if path.is_dir() and path.name not in asked]
    return Outcome(done, before, skipped + skipped_before, tuple(changed), tuple(recaptioned), tuple(foreign))


def read_skipped(out: Path) -> dict[str, str]:
    """Id and reason of each clip that was skipped; a line that a killed worker left unfinished says nothing."""
    return {row.id: row.reason for row in _skipped(out)}


class _Skipped(NamedTuple):
    id: str
    reason: str
    content: str


def _skipped(out: Path) -> list[_Skipped]:
    if not (out / SKIPPED).exists():
        return []
    rows = [row.fields for row in read_rows(out / SKIPPED) if row.fields is not None]
    return [
        _Skipped(str(row["id"]), str(row["reason"]), str(row.get("content")))
        for row in rows
        if row.keys() >= {"id", "reason"}
    ]


def _annotate_one(annotator: Annotator, job: Job, inputs: ClipInputs, folder: Path, geometry: Geometry) -> None:
    from prophy.video import write_video

    frames = job.read()  # first: a disk that is away for a while loses nothing
    (folder / TARGETS).unlink(missing_ok=True)  # of another video or other labels: from here on nobody may read them
    annotation = annotator.annotate(frames, geometry.fps, job.phenomena, geometry.grid)
    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / PREVIEW, _preview(frames), geometry.fps)
    inputs.write(folder)
    annotation.save(folder)


def _preview(frames: np.ndarray) -> np.ndarray:
    """The clip small enough to keep beside its maps, with even sides."""
    height, width = frames.shape[1:3]
    scale = min(1.0, _PREVIEW_SIDE / max(height, width))
    size = max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)
    if size == (width, height):
        return frames
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def _claim(out: Path, annotator: Annotator, geometry: Geometry) -> None:
    """Annotations of two recipes are not to be mixed: the first worker writes down its own, the others compare."""
    recipe = {
        "model": annotator.name,
        "revision": annotator.revision,
        "prompt_version": PROMPT_VERSION,
        "phenomena_version": phenomena.VERSION,
        "layers": annotator.layers,
        "config": asdict(annotator.config),
        "geometry": asdict(geometry),
    }
    recipe = json.loads(json.dumps(recipe))
    out.mkdir(parents=True, exist_ok=True)
    if not (out / RECIPE).exists():
        write_text(out / RECIPE, json.dumps(recipe, indent=2) + "\n", shared=True)
    try:
        found = read_object(out / RECIPE, "annotate again")
    except ValueError:
        found = {}
    if differing := [name for name, value in recipe.items() if found.get(name) != value]:
        raise ValueError(f"{out} holds annotations with another {', '.join(differing)}: choose another --out")


def _append(path: Path, row: dict[str, str]) -> None:
    """One line by one write, which workers on one machine cannot tear apart."""
    line = json.dumps(row, ensure_ascii=False) + "\n"
    torn = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, (("\n" if torn else "") + line).encode())
    finally:
        os.close(file)
