"""Files and folders that are written whole or not at all, locks, and digests of what they hold (no torch)."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing is locked
    fcntl = None


@contextmanager
def replacing(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A name beside ``path`` to write to, which takes the path's place when the block ends, and is gone if it fails.

    The name ends in ``.new``. What a killed process leaves there is written over by the next one.

    Args:
        path: of the file.
        shared: several processes or threads may write it at once: each has a name of its own, and the last one stays.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new" if shared else f"{path.name}.new")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, shared: bool = False) -> None:
    """Write UTF-8; see :func:`replacing`."""
    with replacing(path, shared=shared) as temporary:
        temporary.write_text(text, encoding="utf-8")


def replace_folder(new: Path, folder: Path) -> None:
    """Let a finished folder take the place of ``folder``, which may exist; the old one is deleted last."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """Paths in a folder that match, sorted; none where there is no folder.

    Hidden ones are left out, such as the ``._name`` that a Mac leaves beside each file on a disk of another system.
    """
    return sorted(path for path in Path(folder).glob(pattern) if not path.name.startswith("."))


def some_of(names: Sequence[str]) -> str:
    """The first five names, for messages."""
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


def read_regular(path: Path, most_bytes: int) -> bytes:
    """A file's bytes, if it is a file and not too large.

    Raises:
        ValueError: a folder, a pipe, a device or a socket; or larger. Pipes and devices are not waited for.
        OSError: it cannot be opened.
    """
    with open_regular(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"{Path(path).name} is larger than {most_bytes >> 20} MiB")
    return data


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read, if it is one; see :func:`read_regular`."""
    # O_NONBLOCK: opening a named pipe would wait for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{Path(path).name} is not a file")
    return os.fdopen(descriptor, "rb")


def check_file(path: Path) -> Path:
    """The path of a file, for libraries that would wait for a pipe; raises as :func:`read_regular`."""
    open_regular(path).close()
    return path


def take_lock(path: Path) -> IO[bytes] | None:
    """Lock a file, which is made if it is missing, until what is returned is closed; None if another holds it.

    The system frees the lock of a process that is killed. The file stays: removing it would let two hold "the" lock.

    Raises:
        OSError: the file cannot be made.
    """
    file = open(path, "ab")  # noqa: SIM115  it is the caller's to close
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def sha256(content: bytes | str) -> str:
    """SHA-256 of bytes, or of a text in UTF-8: 64 hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content: 64 hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
