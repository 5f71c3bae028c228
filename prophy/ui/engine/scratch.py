"""Files that last for minutes: a folder of this process, which goes with it, or with the next one's start."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock, Timer

from prophy.files import take_lock

_PREFIX = "prophy-app-"
_LOCK = "lock"
_KEPT_SECONDS = 600.0  # of a file made for a caller: gradio has its own copy by then
_SWEEP_SECONDS = 120.0
_NEW_SECONDS = 60.0  # of a folder that its process may not have locked yet


class Scratch:
    """A folder in the system's temporary one. It is made when it is first asked for."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._making = Lock()

    @property
    def path(self) -> Path:
        """The folder; those of processes that were killed are removed when it is made."""
        with self._making:
            if self._path is None:
                _sweep_dead()
                self._path = Path(tempfile.mkdtemp(prefix=_PREFIX))
                self._held = take_lock(self._path / _LOCK)  # as long as this process lives
                (self._path / "sent").mkdir()
                atexit.register(shutil.rmtree, self._path, ignore_errors=True)
                every(_SWEEP_SECONDS, self.sweep)
            return self._path

    def new_folder(self) -> Path:
        """A new folder for files that go to a caller; it is removed some minutes later."""
        return Path(tempfile.mkdtemp(dir=self.path / "sent"))

    def sweep(self) -> None:
        """Remove the folders of some minutes ago. Another that does the same at this moment does no harm."""
        try:
            folders = list(os.scandir(self.path / "sent"))
        except FileNotFoundError:
            return  # the process ends
        for old in folders:
            try:
                if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
                    shutil.rmtree(old.path, ignore_errors=True)
            except FileNotFoundError:
                continue


def every(seconds: float, work: Callable[[], object]) -> None:
    """Do something again and again, in a thread of its own, also when nobody asks for anything; it ends with the
    process."""

    def once() -> None:
        work()
        every(seconds, work)

    timer = Timer(seconds, once)
    timer.daemon = True
    timer.start()


def _sweep_dead() -> None:
    """Remove the folders of processes that hold their locks no longer."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            status = folder.lstat()
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            # A new one is not locked yet.
            if not is_ours or time.time() - status.st_mtime < _NEW_SECONDS:
                continue
            lock = take_lock(folder / _LOCK)
        except OSError:
            continue  # it goes at this moment
        if lock is not None:
            with lock:
                shutil.rmtree(folder, ignore_errors=True)
