"""Many clips by many workers: whose clip is whose, what is done, what was skipped and why.

A worker's clips follow from its shard alone, so workers never talk to each other. Each annotated clip is a folder that
appears file by file with its targets last: where there are targets, the clip is done, and is never done again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from prophy import phenomena
from prophy.annotation.annotator import Annotator
from prophy.annotation.config import PROMPT_VERSION
from prophy.annotation.record import TARGETS
from prophy.data.jobs import Geometry, Job, Shard
from prophy.files import write_text
from prophy.video import write_video

log = logging.getLogger(__name__)

CLIPS, RECIPE, SKIPPED = "clips", "recipe.json", "skipped.jsonl"
PREVIEW, ABOUT = "clip.mp4", "clip.json"  #: of a clip's folder, beside what :class:`Annotation` writes
_PREVIEW_SIDE = 256  # pixels, at most
_HOPELESS = 10  # clips skipped from the start, none done: something is wrong with all of them


@dataclass(frozen=True)
class Outcome:
    """What a worker did.

    Attributes:
        annotated: clips, now.
        before: clips that were done when it began.
        skipped: clips that cannot be annotated, now and before; ``skipped.jsonl`` has their reasons.
    """

    annotated: int
    before: int
    skipped: int


def annotate_all(annotator: Annotator, jobs: Sequence[Job], out: Path, geometry: Geometry, shard: Shard) -> Outcome:
    """Annotate a shard of the clips; those done before are not done again.

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
    known = read_skipped(out)
    todo = [job for job in own if job.id not in known and not (out / CLIPS / job.folder / TARGETS).exists()]
    skipped_before = sum(job.id in known for job in own)
    before = len(own) - len(todo) - skipped_before
    done = skipped = 0
    with tqdm(total=len(own), initial=len(own) - len(todo), desc=f"annotate {shard}", unit="clip") as bar:
        for job in todo:
            try:
                _annotate_one(annotator, job, out / CLIPS / job.folder, geometry)
            except ValueError as error:
                skipped += 1
                reason = " ".join(str(error).split())
                log.warning("skipped %s: %s", job.id, reason)
                _append(out / SKIPPED, {"id": job.id, "reason": reason})
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
    return Outcome(done, before, skipped + skipped_before)


def read_skipped(out: Path) -> dict[str, str]:
    """Id and reason of each clip that was skipped; a line that a killed worker left unfinished says nothing."""
    found = {}
    try:
        lines = (out / SKIPPED).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        try:
            row = json.loads(line)
            found[row["id"]] = row["reason"]
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _annotate_one(annotator: Annotator, job: Job, folder: Path, geometry: Geometry) -> None:
    frames = job.read()
    annotation = annotator.annotate(frames, geometry.fps, job.phenomena, geometry.grid)
    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / PREVIEW, _preview(frames), geometry.fps)
    about = {"id": job.id, "caption": job.caption, "phenomena": job.phenomena}
    write_text(folder / ABOUT, json.dumps(about, ensure_ascii=False) + "\n", shared=True)
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
        found = json.loads((out / RECIPE).read_text())
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
