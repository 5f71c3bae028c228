"""Files that last for minutes: a folder of this process, which goes with it, or with the next one's start."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock, Timer

from prophy.files import take_lock

_PREFIX = "prophy-app-"
_LOCK = "lock"
_SENT, _RECEIVED = "sent", "gradio"  # folders: files made for callers; gradio's own copies, and files of visitors
_KEPT_SECONDS = 600.0  # of a file made for a caller: gradio has its own copy by then
_PARTIAL_SECONDS = 3600.0  # of a visitor's file since its last byte; none may take as long to arrive
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
                for name in (_SENT, _RECEIVED):
                    (self._path / name).mkdir()
                atexit.register(shutil.rmtree, self._path, ignore_errors=True)
                every(_SWEEP_SECONDS, self.sweep)
            return self._path

    @property
    def sent(self) -> Path:
        """Where files for callers are made. What lies in it is removed some minutes later."""
        return self.path / _SENT

    def new_folder(self) -> Path:
        """A new folder for files that go to a caller; it is removed some minutes later."""
        return Path(tempfile.mkdtemp(dir=self.sent))

    @property
    def received(self) -> Path:
        """Where gradio is to keep its copies of what it sends, and what visitors send."""
        return self.path / _RECEIVED

    def sweep(self) -> None:
        """Remove the folders of some minutes ago, and what never arrived whole. Another that does the same at this
        moment does no harm.
        """
        for folder in _older(self.sent, _KEPT_SECONDS):
            shutil.rmtree(folder, ignore_errors=True)
        # gradio moves a file into a folder once it is whole, and sweeps only these
        for file in _older(self.received, _PARTIAL_SECONDS):
            if file.is_file(follow_symlinks=False):
                with suppress(OSError):
                    os.unlink(file)


def _older(folder: Path, seconds: float) -> list[os.DirEntry[str]]:
    """What lies in a folder and was last changed so long ago."""
    old = []
    with suppress(FileNotFoundError):  # the process ends
        for entry in list(os.scandir(folder)):
            with suppress(FileNotFoundError):
                if time.time() - entry.stat().st_mtime > seconds:
                    old.append(entry)
    return old


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
    """Remove the folders of processes that hold their locks no longer. Where the system has no owners of files it has
    no such locks either (:func:`~prophy.files.take_lock`), and none is removed.
    """
    if not hasattr(os, "getuid"):
        return
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
