"""The folder of a run, read while it trains. Nothing is written here, and no torch is needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from prophy.runs.record import RunError
from prophy.runs.store import Run, find_run
from prophy.training.about import RUN_FILE, About
from prophy.training.checkpoints import Saved, saved_in
from prophy.training.log import GrowingLog, Line

CHECKPOINT, SAMPLES = "checkpoint", "samples"

_STEP_FOLDER = re.compile(r"step-[0-9]{1,15}")


@dataclass(frozen=True)
class Look:
    """A run at one moment.

    Attributes:
        about: None if run.json cannot be read.
        lines: of its log.
        version: of the lines; another number means that they are others, or more.
        written: when the log last changed, in seconds since the epoch; None while there is none.
        saved: its checkpoint; None while there is none.
        samples: the folder of each step with samples, newest first.
        faults: what cannot be read, one line each, with the cure.
    """

    about: About | None
    lines: Sequence[Line]
    version: int
    written: float | None
    saved: Saved | None
    samples: tuple[str, ...]
    faults: tuple[str, ...]


class TrainingRun:
    """One run. Several threads may look at it.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._log, self._version, self._lock = GrowingLog(self.path), 0, Lock()

    def look(self) -> Look:
        """Read what is new."""
        faults, about, saved = [], None, None
        with self._lock:
            self._version += self._log.read()
            lines, written, fault, version = list(self._log.lines), self._log.written, self._log.fault, self._version
        try:
            about = About.read(self.path)
        except ValueError as error:
            faults.append(str(error))
        if fault is not None:
            faults.append(fault)
        try:
            saved = saved_in(self.path / CHECKPOINT)
        except ValueError as error:
            faults.append(str(error))
        return Look(about, lines, version, written, saved, tuple(self._sample_folders()), tuple(faults))

    def sample_ids(self, step: str) -> tuple[str, ...]:
        """The samples in one of ``Look.samples``; none if there is no such folder, whatever the name says."""
        if step not in self._sample_folders():
            return ()
        return _ids_in(self.path / SAMPLES / step)

    def sample(self, step: str, sample: str) -> Run:
        """Open a sample, by names that anyone may have typed.

        Raises:
            RunError: there is no such sample, or it is damaged.
        """
        if step not in self._sample_folders():
            raise RunError(f"the run has no samples {step[:80]!r}: choose another step")
        return find_run(self.path / SAMPLES / step, sample)

    def _sample_folders(self) -> list[str]:
        """Those with a sample. Links are left out: they may lead anywhere."""
        folder = self.path / SAMPLES
        if folder.is_symlink() or not folder.is_dir():
            return []
        found = (one for one in folder.iterdir() if _STEP_FOLDER.fullmatch(one.name))
        steps = [one.name for one in found if not one.is_symlink() and _ids_in(one)]
        return sorted(steps, key=lambda name: int(name.removeprefix("step-")), reverse=True)


def _ids_in(folder: Path) -> tuple[str, ...]:
    """Of whole samples: one that is being written has a hidden name."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(one.name for one in folder.iterdir() if not one.name.startswith(".") and one.is_dir()))


class Trainings:
    """The runs in some folders, found anew at each look.

    Args:
        folders: each a run's own, or a folder of them.

    Raises:
        FileNotFoundError: one does not exist. One line.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [Path(folder).resolve() for folder in folders]
        for given, folder in zip(folders, self._folders, strict=True):
            if not folder.is_dir():
                raise FileNotFoundError(f"{given} is no folder: give what prophy train has as --out, or its parent")
        self._runs: dict[Path, TrainingRun] = {}
        self._lock = Lock()

    @property
    def names(self) -> str:
        """Of the folders."""
        return " and ".join(folder.name for folder in self._folders)

    def runs(self) -> dict[str, TrainingRun]:
        """Every run by a name to show, the one begun last first."""
        begun: dict[Path, float] = {}
        for folder in self._folders:
            children = [] if _is_run(folder) else sorted(one for one in folder.iterdir() if not one.is_symlink())
            for path in [folder, *children]:
                if _is_run(path):
                    begun[path] = (path / RUN_FILE).stat().st_mtime
        newest_first = sorted(begun, key=lambda path: begun[path], reverse=True)
        alone = [path.name for path in begun]
        with self._lock:
            self._runs = {path: self._runs.get(path) or TrainingRun(path) for path in newest_first}
            return {
                path.name if alone.count(path.name) == 1 else f"{path.parent.name}/{path.name}": run
                for path, run in self._runs.items()
            }


def _is_run(folder: Path) -> bool:
    """Of a training: a generation has a run.json too, beside its clip."""
    path = folder / RUN_FILE
    return path.is_file() and not path.is_symlink() and not (folder / "video.mp4").exists()
