"""Files by the names that a table gives them, which another system may have written otherwise."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from pathlib import Path, PurePosixPath

from prophy.data.records import RowError, find_videos, is_there


class VideoFinder:
    """Finds videos in a folder by a table's names.

    A name that is there as it stands is taken. Else the only video is taken whose name is the same on other systems:
    composed or decomposed letters (a Mac writes ``é`` as two), backslashes for slashes (Windows), dots and spaces at an
    end (which Windows leaves out), capitals or not.

    Args:
        folder: looked through once, with the folders below, when a name is not there as it stands.
        anywhere: names may lack the folders before their last part, or have those of the machine the table was made on.
    """

    def __init__(self, folder: Path, *, anywhere: bool = False) -> None:
        self.folder, self._anywhere = Path(folder), anywhere
        self._found: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path:
        """The video of this name.

        Raises:
            RowError: there is none, or several.
        """
        if is_there(exact := self.folder / name):
            return exact
        if self._found is None:
            self._found = defaultdict(list)
            for video in find_videos(self.folder):
                self._found[_key(video.relative_to(self.folder).as_posix(), self._anywhere)].append(video)
        key = _key(name, self._anywhere)
        found = self._found.get(key) or self._found.get(f"{key}.mp4" if self._anywhere else key) or []
        if len(found) > 1:
            same = [video for video in found if _normal(video.name) == _normal(_parts(name)[-1])]
            found = same if len(same) == 1 else found
        if not found:
            where = f"{_parts(name)[-1]} is not in {self.folder}" if self._anywhere else str(exact)
            raise RowError("its video is not there", where)
        if len(found) > 1:
            raise RowError("its video's name is not unique", ", ".join(map(str, found)))
        return found[0]


def _parts(name: str) -> list[str]:
    return [part for part in (part.rstrip(". ") for part in re.split(r"[/\\]", name)) if part] or [""]


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _key(name: str, last_only: bool) -> str:
    parts = _parts(name)[-1:] if last_only else _parts(name)
    return unicodedata.normalize("NFC", _normal(str(PurePosixPath(*parts))).casefold())
