"""Rows out of JSON, JSON Lines and CSV files, with errors that say where."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from prophy.files import read_regular
from prophy.schema import parsed

SUFFIXES = (".json", ".jsonl", ".csv")
_MAX_BYTES = 2**30  # of a table
_MAX_CELL = 16 * 1024**2  #: characters; Python's own limit, 131,072, would end the file at one over-long caption


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        where: the file's name and the line or item, for messages.
        fields: by column or key; None if the row itself cannot be read.
        problem: why not.
    """

    where: str
    fields: Mapping[str, object] | None
    problem: str = ""


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        ValueError: it is not UTF-8; the message gives the first offending byte and the cure.
        OSError: it cannot be read.
    """
    data = read_regular(path, _MAX_BYTES)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} is UTF-16, not UTF-8 (offset 0): convert it with iconv -f UTF-16 -t UTF-8")
    mark = 3 if data.startswith(b"\xef\xbb\xbf") else 0  # a byte order mark: Excel writes one
    try:
        return data[mark:].decode()
    except UnicodeDecodeError as error:
        offset = mark + error.start
        raise ValueError(
            f"{path} is not UTF-8: byte 0x{data[offset]:02x} at offset {offset:,}; convert it from its own encoding, "
            "such as iconv -f CP1252 -t UTF-8"
        ) from None


def read_mended_text(path: Path) -> tuple[str, int]:
    """A file's text, whose bytes that are not UTF-8 are read as Windows-1252, and how many those were.

    For tables of others, which are known to mix both. Raises as :func:`read_text`, but for these bytes.
    """
    data = read_regular(path, _MAX_BYTES)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return read_text(path), 0
    text = data.decode("utf-8-sig", errors="surrogateescape")
    stray = re.compile("[\udc80-\udcff]")
    count = len(stray.findall(text))
    return stray.sub(lambda m: bytes([ord(m.group()) - 0xDC00]).decode("cp1252", errors="replace"), text), count


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a ``.json`` (a list of objects), ``.jsonl`` (an object a line) or ``.csv`` (a header line) file.

    A row that cannot be read is given with its problem, so that its reader can list it and go on. Names of columns
    and keys lose surrounding white space.

    Raises:
        ValueError: another suffix; not UTF-8; the JSON or the CSV is broken as a whole, or its header is.
        OSError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path.name} must end in {', '.join(SUFFIXES)}")
    text = read_text(path)
    reader = {".json": _json_rows, ".jsonl": _json_lines, ".csv": csv_rows}[suffix]
    return reader(path, text)


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    try:
        items = parsed(text)
    except ValueError as error:
        cure = "; one object a line is .jsonl" if "Extra data" in str(error) else ""
        raise ValueError(f"{path} is not JSON: {error}{cure}") from None
    if not isinstance(items, list):
        raise ValueError(f"{path} holds {_kind(items)}, not a list of objects")
    for number, item in enumerate(items, 1):
        yield _json_row(f"{path.name} item {number}", item)


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    # Not splitlines(): JSON text may hold U+2028, at which that splits too.
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{path.name} line {number}"
        if not line.strip():
            continue
        try:
            item = parsed(line, unique=True)
        except ValueError as error:
            yield Row(where, None, f"not JSON: {error}")
        else:
            yield _json_row(where, item)


def _json_row(where: str, item: object) -> Row:
    if not isinstance(item, dict):
        return Row(where, None, f"{_kind(item)}, not an object")
    return Row(where, {key.strip(): value for key, value in item.items()})


def _kind(item: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(item), "a number")


def csv_rows(path: Path, text: str) -> Iterator[Row]:
    """The rows of a CSV's text; see :func:`read_rows`.

    Columns without a name at the end, as spreadsheets leave them, are left out where they are empty.

    Raises:
        ValueError: the CSV is broken as a whole, or its header is.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first = _next_row(path, reader, 1)
    if first == ["sep=", ""]:  # Excel's note that commas separate
        first = _next_row(path, reader, 2)
    while first is not None and not any(cell.strip() for cell in first):  # above a sheet's own first line
        first = _next_row(path, reader, reader.line_num + 1)
    header = [name.strip().strip("\ufeff") for name in first or []]
    if not any(header):
        raise ValueError(f"{path} is empty: its first line must name the columns")
    width = len(header)
    while not header[-1]:
        header.pop()
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ValueError(f"{path} names a column twice: {', '.join(map(repr, twice))}")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise ValueError(f"{path} is not separated by commas: its first line is {header[0][:80]!r}")
    while True:
        line = reader.line_num + 1
        where = f"{path.name} line {line}"
        cells = _next_row(path, reader, line)
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        nameless = [cell for cell in cells[len(header) :] if cell.strip()]
        if len(cells) < len(header) or (nameless and len(cells) > width):
            yield Row(where, None, f"{len(cells)} cells under {width} columns: quote a cell that holds a comma")
        else:
            named = dict(zip(header, cells[: len(header)], strict=True))
            yield Row(where, {**named, "": " ".join(nameless)} if nameless else named)


def _next_row(path: Path, reader: Iterator[list[str]], line: int) -> list[str] | None:
    limit = csv.field_size_limit(_MAX_CELL)
    try:
        return next(reader, None)
    except csv.Error as error:
        raise ValueError(f"{path} is not CSV from line {line} on: {error} (is a quote left open?)") from None
    finally:
        csv.field_size_limit(limit)
