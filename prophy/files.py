"""Files and folders that are written whole or not at all, locks, and digests of what they hold (no torch)."""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing is locked
    fcntl = None  # type: ignore[assignment]

P = ParamSpec("P")
T = TypeVar("T")


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


def check_writable(folder: Path) -> None:
    """See that a file can be written into a folder, before work that ends with that. Nothing is left there.

    Raises:
        OSError: it cannot, nor made. One line.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    probe = folder / f".{secrets.token_hex(4)}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        why = error.strerror or error
        raise OSError(
            f"{folder} cannot be written to ({why}): give another folder, or make this one writable"
        ) from None
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


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


def open_regular(path: Path) -> io.BufferedReader:
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


def exclusive(what: str, folder: str = "out", *, beside: bool = False) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function that two processes, or two threads, may not run at once on one folder: the second is refused.

    Workers of one work, each with its own ``shard``, are not in each other's way; of the processes of one training the
    first stands for all. The lock of a process that is killed is free.

    Args:
        what: it does, in words for the refusal.
        folder: the name of its parameter that holds the folder; where that is None there is nothing to lock.
        beside: the lock lies beside the folder, which the function puts another one in the place of.

    Raises:
        ValueError: from the function, when another has the folder.
    """

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @wraps(function)
        def alone(*args: P.args, **kwargs: P.kwargs) -> T:
            asked = signature.bind(*args, **kwargs).arguments
            out, shard = asked.get(folder), asked.get("shard")
            if out is None or os.environ.get("RANK", "0") != "0":
                return function(*args, **kwargs)
            name = ".lock" if shard is None else f".lock-{shard.index + 1}-of-{shard.count}"
            with _held(Path(out), name, what, beside):
                return function(*args, **kwargs)

        return alone

    return wrap


@contextmanager
def _held(folder: Path, name: str, what: str, beside: bool) -> Iterator[None]:
    path = folder.with_name(f".{folder.name}{name}") if beside else folder / name
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = take_lock(path)
    while lock is not None and not _is_at(lock, path):  # its last holder removed it meanwhile
        lock.close()
        lock = take_lock(path)
    if lock is None:
        raise ValueError(f"another process is {what} into {folder}: wait for it, or choose another folder")
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # something was written
                for parent in made:
                    parent.rmdir()


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def sha256(content: bytes | str) -> str:
    """SHA-256 of bytes, or of a text in UTF-8: 64 hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content: 64 hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 of files in a folder, each by its name there and its content: 64 hexadecimal digits."""
    return sha256("\n".join(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}" for path in files))
