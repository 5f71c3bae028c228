"""Files that are written whole or not at all (no torch)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A name beside ``path`` to write to, which takes the path's place when the block ends.

    What a killed process leaves there is written over by the next one.

    Args:
        path: of the file.
        shared: several processes may write it at once: each has a name of its own, and the last one stays.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new" if shared else f"{path.name}.new")
    yield temporary
    os.replace(temporary, path)


def write_text(path: Path, text: str, *, shared: bool = False) -> None:
    """Write UTF-8; see :func:`replacing`."""
    with replacing(path, shared=shared) as temporary:
        temporary.write_text(text, encoding="utf-8")
