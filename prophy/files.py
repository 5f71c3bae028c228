"""Files and folders that are written whole or not at all, and digests of what they hold (no torch)."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


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


def sha256(content: bytes | str) -> str:
    """SHA-256 of bytes, or of a text in UTF-8: 64 hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content: 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
