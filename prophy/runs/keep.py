"""Which runs of a folder are kept: by number, bytes and age. The oldest go first, pinned ones never."""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from prophy.files import take_lock
from prophy.runs.owner import OwnerError, read_owner
from prophy.runs.record import RunError
from prophy.runs.store import delete_run, run_folder
from prophy.schema import check_fields

logger = logging.getLogger(__name__)

PIN = "pinned"  #: a file of this name in a run's folder keeps the run
_LOCK = ".sweep"
_HIDDEN = (".partial-", ".deleted-")  # what a write or a deletion leaves that was killed
_LEFT_SECONDS = 3600.0  # after which nobody is still writing there


@dataclass(frozen=True)
class RunLimits:
    """How much a folder of runs may hold; None asks nothing.

    Attributes:
        runs: how many.
        gib: of files.
        days: how old.
        unowned: whether runs that nobody owns go too, as those of programs do; on one's own machine they are those of
            the command line, which are not the app's to delete.

    Raises:
        ValueError: a number out of its range.
    """

    runs: Annotated[int, Field(ge=1, le=10**6)] | None = None
    gib: Annotated[float, Field(gt=0, le=10**6)] | None = None
    days: Annotated[float, Field(gt=0, le=10**5)] | None = None
    unowned: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


OWN_MACHINE = RunLimits(runs=1000, gib=20.0)  #: what the app keeps on a person's own machine
PUBLIC = RunLimits(runs=300, gib=5.0, days=7.0, unowned=True)  #: what it keeps where anybody may ask


class _Found(NamedTuple):
    written: float  # seconds since the epoch
    id: str
    bytes: int


def sweep_runs(root: str | Path, limits: RunLimits) -> list[str]:
    """Delete what is beyond the limits, and what killed writes left. Never fails: what cannot go is logged.

    Two apps may have one folder: one of them sweeps, and what is gone is gone for both.

    Args:
        root: the folder of runs; it may be missing.
        limits: of the folder.

    Returns:
        The ids of the runs that went.
    """
    root = Path(root)
    if not root.is_dir():
        return []
    try:
        lock = take_lock(root / _LOCK)
    except OSError as error:
        logger.warning("runs are not swept: %s", error.strerror)
        return []
    if lock is None:
        return []
    with lock:
        try:
            _sweep_leftovers(root)
            return [one.id for one in _beyond(_found(root, limits), limits) if _delete(root, one.id)]
        finally:
            (root / _LOCK).unlink(missing_ok=True)


def _sweep_leftovers(root: Path) -> None:
    for path in root.iterdir():
        if path.name.startswith(_HIDDEN) and not path.is_symlink() and _age(path) > _LEFT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _found(root: Path, limits: RunLimits) -> list[_Found]:
    """The runs that may go, newest first."""
    found = []
    for name in os.listdir(root):
        try:
            folder = run_folder(root, name)
            if (folder / PIN).exists() or (read_owner(folder) is None and not limits.unowned):
                continue
            size = sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))
            found.append(_Found(folder.stat().st_mtime, name, size))
        except (RunError, OwnerError, OSError):
            continue  # no run, or one that goes at this moment
    return sorted(found, reverse=True)


def _beyond(found: list[_Found], limits: RunLimits) -> list[_Found]:
    """Those beyond the limits, the oldest first."""
    beyond, total = [], 0
    for place, one in enumerate(found):
        total += one.bytes
        too_many = limits.runs is not None and place >= limits.runs
        too_large = limits.gib is not None and total > limits.gib * 2**30 and place > 0  # the last one stays
        too_old = limits.days is not None and time.time() - one.written > limits.days * 86400
        if too_many or too_large or too_old:
            beyond.append(one)
    return beyond[::-1]


def _delete(root: Path, run_id: str) -> bool:
    try:
        delete_run(root, run_id)
    except (RunError, OSError) as error:
        logger.warning("run %s is not swept: %s", run_id, error)
        return False
    return True


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0
