"""The owner of a run: a file beside those that run.json names, so it is neither hashed nor packed with them.

It holds the digest of a secret that only the visitor's browser has. Whoever brings the secret may change the run; the
run's id, which is in every shared link, opens it and no more.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_NAME = "owner"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class OwnerError(ValueError):
    """The owner of a run cannot be told. The message is one line."""


def write_owner(folder: str | Path, digest: str) -> None:
    """Note whose a run is, while its folder is being written.

    Args:
        folder: of the run.
        digest: 64 hexadecimal digits.

    Raises:
        OwnerError: the digest is none.
        OSError: the disk refused, or the run has an owner.
    """
    if _DIGEST.fullmatch(digest) is None:
        raise OwnerError("the owner of a run is a digest of 64 hexadecimal digits")
    with open(Path(folder) / _NAME, "x", encoding="ascii") as file:
        file.write(digest)
        file.flush()
        os.fsync(file.fileno())


def read_owner(folder: str | Path) -> str | None:
    """The digest of a run's owner; None for a run that nobody owns, such as one of the command line.

    Raises:
        OwnerError: there is such a file, but not as :func:`write_owner` leaves it.
    """
    try:
        # O_NOFOLLOW: a link could name any file. O_NONBLOCK: opening a named pipe would hang.
        descriptor = os.open(Path(folder) / _NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OwnerError(f"the owner of run {Path(folder).name} cannot be read: {error.strerror}") from None
    try:
        digest = os.read(descriptor, 65).decode("ascii")
    except (OSError, ValueError):
        digest = ""
    finally:
        os.close(descriptor)
    if _DIGEST.fullmatch(digest) is None:
        raise OwnerError(f"the owner of run {Path(folder).name} cannot be read: the file is damaged")
    return digest


def runs_of(root: str | Path, digest: str, most: int) -> list[str]:
    """The ids of the runs under ``root`` that a digest owns, the last ones by name, which begins with the time.

    Args:
        root: the folder of runs; it may be missing.
        digest: of the owner; empty for nobody, who owns nothing.
        most: how many to return at most.
    """
    return _owned(root, digest, most) if digest else []


def unowned_runs(root: str | Path, most: int) -> list[str]:
    """The ids of the runs under ``root`` that nobody owns; see :func:`runs_of`."""
    return _owned(root, None, most)


def _owned(root: str | Path, by: str | None, most: int) -> list[str]:
    root = Path(root)
    found: list[str] = []
    if not root.is_dir():
        return found
    for name in sorted(os.listdir(root), reverse=True):
        try:
            is_theirs = not name.startswith(".") and (root / name).is_dir() and read_owner(root / name) == by
        except OwnerError:
            continue
        if is_theirs:
            found.append(name)
            if len(found) == most:
                break
    return found
