"""A folder of clips with a table of captions: ``file, caption`` and, if known, ``phenomena``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath

from prophy.data.labels import WISA_17, LabelReader, LabelSet, Tallies
from prophy.data.names import VideoFinder
from prophy.data.records import (
    ClipRecord,
    Fault,
    Reading,
    RowError,
    find_videos,
    is_plain,
    read_captions,
    read_number,
)
from prophy.data.tables import read_rows
from prophy.files import some_of, visible

_NEEDED = ("file", "caption")
_OPTIONAL = ("phenomena", "duration", "width")
_TABLES = (".csv", ".jsonl")


def read_folder(path: str | Path, *, labels: LabelSet = WISA_17) -> Reading:
    """Read a folder of clips.

    Args:
        path: the folder, which holds one ``.csv`` or ``.jsonl``, or that table itself. Its columns: ``file``, relative
            to the table; ``caption``; optional ``phenomena`` (ids or names with commas between; empty means none),
            ``duration`` (seconds) and ``width`` (pixels). Other columns are noted and not read.
        labels: the set that ``phenomena`` is read into.

    Returns:
        :class:`~prophy.data.records.Reading`, the ids being the files' names as the table gives them. A row whose
        video is missing, or named by another row too, is a fault.

    Raises:
        ValueError: no table or several, a column is missing, not UTF-8, or broken as a whole.
        OSError: the table cannot be read.
    """
    table = _table(Path(path))
    folder = table.parent
    finder = VideoFinder(folder)
    reader, notes = LabelReader(labels), Tallies()
    rows = list(read_rows(table))
    _check_columns(table, [row.fields for row in rows if row.fields is not None], notes)

    faults: list[Fault] = []
    found: dict[Path, list[tuple[str, ClipRecord]]] = {}
    for row in rows:
        if row.fields is None:
            faults.append(Fault(row.where, "", "the row cannot be read", row.problem))
            continue
        name = row.fields.get("file")
        name = name.strip() if isinstance(name, str) else ""
        try:
            video = _video(finder, name)
            found.setdefault(video, [])
            found[video].append((row.where, _record(row.fields, name, video, reader, notes)))
        except RowError as error:
            faults.append(Fault(row.where, name, error.reason, error.detail))
    records = []
    for named in found.values():
        if len(named) == 1:
            records.append(named[0][1])
        else:
            lines = some_of([where for where, _ in named])  # not all: each of them gets this line
            faults += [
                Fault(where, record.id, "several rows name this video", f"{lines}; keep one") for where, record in named
            ]
    unnamed = tuple(video for video in find_videos(folder) if video not in found)
    records.sort(key=lambda record: record.id)
    return Reading(tuple(records), tuple(faults), labels, reader.report(), notes.read(), unnamed)


def _table(path: Path) -> Path:
    if not path.is_dir():
        if path.suffix.lower() not in _TABLES:
            raise ValueError(
                f"{path} is neither a folder nor a table of captions: tables end in {' or '.join(_TABLES)}"
            )
        return path
    tables = [file for file in visible(path) if file.suffix.lower() in _TABLES]
    if not tables:
        raise ValueError(f"{path} holds no table of captions: add captions.csv with the columns file,caption")
    if len(tables) > 1:
        raise ValueError(f"{path} holds {', '.join(file.name for file in tables)}: name the one to read")
    return tables[0]


def _check_columns(table: Path, rows: list[Mapping[str, object]], notes: Tallies) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:
        raise ValueError(f"{table} has no row that can be read: a first line file,caption and a row for each clip")
    for needed in _NEEDED:
        if needed not in columns:
            close = difflib.get_close_matches(needed, [column.casefold() for column in columns], 1)
            like = [column for column in columns if column.casefold() in close]
            cure = f"rename {like[0]!r}" if like else "add it"
            raise ValueError(f"{table.name} has no column {needed!r}, only {', '.join(columns)}: {cure}")
    for column in columns:
        if column not in _NEEDED + _OPTIONAL:
            notes.add(f"column {column!r} not read", table.name)


def _video(finder: VideoFinder, name: str) -> Path:
    if not name:
        raise RowError("names no video")
    if not is_plain(name):
        raise RowError("its name holds control characters or half of a surrogate pair")
    if any(path.is_absolute() or ".." in path.parts for path in (Path(name), PureWindowsPath(name))):
        raise RowError("its video lies outside the folder", "give a path below the table's own folder")
    return finder.find(name)


def _record(fields: Mapping[str, object], name: str, video: Path, reader: LabelReader, notes: Tallies) -> ClipRecord:
    captions = read_captions([fields.get("caption")], name, notes)
    phenomena = fields.get("phenomena")
    numbers: dict[str, float | None] = {}
    for column in ("duration", "width"):
        try:
            numbers[column] = read_number(fields.get(column))
        except ValueError:
            numbers[column] = None
            notes.add(f"{column} not understood: {fields[column]!r}", name)
    labels = None if phenomena is None else reader.read_names(phenomena, name)
    return ClipRecord(name, video, captions, labels, duration=numbers["duration"], width=numbers["width"])
