"""WISA-80K's metadata, in the three forms it circulates in.

- Released, a list in ``wisa-80k.json``: ``video_name, captions, label, duration, width, text_bbox_num, …`` and
  ``physical_annotation`` with ``phys_law, q0 … q4, n0 … n2, quantify_n0 … quantify_n2``.
- For training: ``file, video_id`` in place of ``video_name``.
- Demo: the annotation's fields beside ``en_caption, en_caption_1, label``, without a video. CSV files are flat too;
  there the annotation may also be one cell of JSON, or columns ``physical_annotation.q0`` and so on.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from prophy.data.labels import QUESTIONS, WISA_17, LabelReader, LabelSet, Tallies
from prophy.data.names import VideoFinder
from prophy.data.records import (
    ClipRecord,
    Fault,
    Quantities,
    Range,
    Reading,
    RowError,
    is_plain,
    read_captions,
    read_number,
)
from prophy.data.tables import SUFFIXES, read_rows
from prophy.files import sha256, visible

_CAPTIONS = ("captions", "en_caption", "detail_caption", "en_caption_1")
_NUMBERS = {"duration": "duration", "width": "width", "text_bbox_num": "text_boxes"}

_NUMBER = r"[-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?"
# Not after a letter, nor as an exponent: "h2o" and "10^3" are no numbers of their own.
_RANGE = rf"(?<![\w.^×*/])(?P<low>{_NUMBER})\s*(?:UNIT\s*)?(?:(?:to|-|–|~)\s*(?P<high>{_NUMBER})\s*)?UNIT"
_BOUND = re.compile(r"(?:than|above|below|over|under|up to|[<>≤≥±])\s*-?\d")  # one end of a range, at most
# Unit, and what one of it is in the field's own unit.
_UNITS: dict[str, dict[str, float]] = {
    "n0": {r"g\s*/\s*cm(?:³|\^?3)": 1.0, r"kg\s*/\s*m(?:³|\^?3)": 1e-3},
    "n1": {
        r"(?:milliseconds?|ms)\b": 1e-3,
        r"(?:seconds?|secs?|s)\b": 1.0,
        r"(?:minutes?|mins?)\b": 60.0,
        r"(?:hours?|h)\b": 3600.0,
        r"days?\b": 86400.0,
    },
    "n2": {r"(?:degrees?\s*celsius|degrees?\s*c\b|°\s*c\b|celsius)": 1.0},
}


def read_wisa(path: str | Path, *, labels: LabelSet = WISA_17, videos: str | Path | None = None) -> Reading:
    """Read WISA-80K's metadata.

    Args:
        path: a ``.json``, ``.jsonl`` or ``.csv`` file, or a folder of them; ``data/`` in it is looked into too.
        labels: :data:`~prophy.data.labels.WISA_17` or :data:`~prophy.data.labels.WISA_29`.
        videos: folder of the videos, at any depth; a record whose video is not there is left out. Without it, paths
            are taken from the metadata's own folder and not checked.

    Returns:
        :class:`~prophy.data.records.Reading`. An unreadable number is noted and left out of its record. Of records
        that share an id and are equal, one is kept; if they differ, none is, for nobody knows whose file it is.

    Raises:
        ValueError: no metadata there, not UTF-8, broken as a whole, or ``videos`` is no folder.
        OSError: a file cannot be read.
    """
    files = _metadata_files(Path(path))
    finder = None if videos is None else VideoFinder(_folder_of_videos(Path(videos)), anywhere=True)
    reader, notes = LabelReader(labels), Tallies()
    by_id: dict[str, list[tuple[str, ClipRecord]]] = defaultdict(list)
    faults: list[Fault] = []
    for file in files:
        for row in read_rows(file):
            if row.fields is None:
                faults.append(Fault(row.where, "", "the row cannot be read", row.problem))
                continue
            record_id = ""
            try:
                record_id = _record_id(row.fields)
                video = _video(row.fields, file.parent, finder)
                record = _record(row.fields, record_id, video, reader, notes)
            except RowError as error:
                faults.append(Fault(row.where, record_id, error.reason, error.detail))
            else:
                by_id[record_id].append((row.where, record))
    records = []
    for record_id, found in by_id.items():
        first_where, first = found[0]
        if all(record == first for _, record in found):
            records.append(first)
            faults += [
                Fault(where, record_id, "an equal record was read before", first_where) for where, _ in found[1:]
            ]
        else:
            faults += [Fault(where, record_id, "different records share this id") for where, _ in found]
    records.sort(key=lambda record: record.id)
    return Reading(tuple(records), tuple(faults), labels, reader.report(), notes.read())


def _metadata_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = visible(path) + visible(path / "data")
    files = sorted(file for file in found if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{path} holds no metadata: it should have wisa-80k.json, or another .json, .jsonl or .csv")
    return files


def _folder_of_videos(folder: Path) -> Path:
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of videos")
    return folder


def _text(fields: Mapping[str, object], *names: str) -> str:
    """The first of these fields that says something, without surrounding white space; ``""`` if none does."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return ""


def _record_id(fields: Mapping[str, object]) -> str:
    if record_id := _text(fields, "video_id", "video_name", "file"):
        if not is_plain(record_id):
            raise RowError("its id holds control characters or half of a surrogate pair")
        return record_id
    caption = _text(fields, *_CAPTIONS)
    if not caption:
        raise RowError("no caption", f"looked for {', '.join(_CAPTIONS)}")
    return f"prompt-{sha256(caption.encode(errors='replace'))[:12]}"


def _video(fields: Mapping[str, object], folder: Path, finder: VideoFinder | None) -> Path | None:
    name = _text(fields, "file", "video_name")
    if not is_plain(name):
        raise RowError("its video's name holds control characters or half of a surrogate pair")
    if not name:
        if finder is not None:
            raise RowError("names no video")
        return None
    return finder.find(name) if finder is not None else folder / name


def _record(
    fields: Mapping[str, object], record_id: str, video: Path | None, reader: LabelReader, notes: Tallies
) -> ClipRecord:
    captions: list[object] = []
    for name in _CAPTIONS:
        value = fields.get(name)
        captions += value if isinstance(value, list) else [value]
    texts = read_captions(captions, record_id, notes)
    annotation = _annotation(fields)
    try:
        labels = reader.read_answers({key: annotation.get(key) for key in QUESTIONS}, record_id)
    except ValueError as error:
        raise RowError("no physical annotation", str(error)) from None
    numbers: dict[str, float | None] = {}
    for name, attribute in _NUMBERS.items():
        try:
            numbers[attribute] = read_number(fields.get(name))
        except ValueError:
            numbers[attribute] = None
            notes.add(f"{name} not understood: {fields[name]!r}", record_id)
    return ClipRecord(
        record_id,
        video,
        texts,
        labels,
        **numbers,
        law=_one_line(annotation, "phys_law", record_id, notes),
        category=_one_line(fields, "label", record_id, notes),
        quantities=_quantities(annotation, record_id, notes),
    )


def _one_line(fields: Mapping[str, object], name: str, record_id: str, notes: Tallies) -> str:
    text = " ".join(_text(fields, name).split())
    if not is_plain(text):
        notes.add(f"{name} not understood: control characters or half of a surrogate pair", record_id)
        return ""
    return text


def _annotation(fields: Mapping[str, object]) -> Mapping[str, object]:
    nested = fields.get("physical_annotation")
    if isinstance(nested, str) and nested.strip():
        try:
            nested = json.loads(nested)
        except (ValueError, RecursionError) as error:
            raise RowError("physical_annotation is not JSON", str(error)) from None
    if isinstance(nested, dict):
        return nested
    if nested:
        raise RowError("physical_annotation is not an object", type(nested).__name__)
    return {key.removeprefix("physical_annotation."): value for key, value in fields.items()}


def _quantities(annotation: Mapping[str, object], record_id: str, notes: Tallies) -> Quantities:
    """From ``quantify_n*`` where it is given, else from the text of ``n*``."""
    found: dict[str, tuple[Range, ...]] = {}
    for name in _UNITS:
        numbers, text = annotation.get(f"quantify_{name}"), annotation.get(name)
        if isinstance(numbers, str) and numbers.strip():  # a cell of a CSV
            try:
                numbers = json.loads(numbers)
            except (ValueError, RecursionError):
                notes.add(f"quantify_{name} not understood: {numbers}", record_id)
                numbers = None
        try:
            found[name] = _ranges(numbers, nested=name == "n0") if numbers else _ranges_in_text(text, name)
        except ValueError as error:
            found[name] = ()
            notes.add(f"{f'quantify_{name}' if numbers else name} not understood: {error}", record_id)
    for name in ("n1", "n2"):
        if len(found[name]) > 1:
            notes.add(f"{name} not understood: {len(found[name])} ranges in place of one", record_id)
    single = {name: found[name][0] if len(found[name]) == 1 else None for name in ("n1", "n2")}
    return Quantities(found["n0"], single["n1"], single["n2"])


def _ranges(numbers: object, *, nested: bool) -> tuple[Range, ...]:
    pairs = numbers if nested else [numbers]
    if not isinstance(pairs, list):
        raise ValueError(repr(numbers))
    ranges = []
    for pair in pairs:
        fits = isinstance(pair, list) and len(pair) == 2 and all(type(value) in (int, float) for value in pair)
        # JSON's whole numbers have no bound, float() does.
        fits = fits and all(abs(value) < 1e300 for value in pair)
        if not fits:
            raise ValueError(repr(numbers))
        ranges.append(_range(float(pair[0]), float(pair[1]), repr(numbers)))
    return tuple(ranges)


def _ranges_in_text(text: object, name: str) -> tuple[Range, ...]:
    """Every range with a unit; a line that has none is not understood."""
    if text is None or (isinstance(text, str) and not text.strip()):
        return ()
    if not isinstance(text, str):
        raise ValueError(repr(text))
    ranges = []
    for line in filter(None, map(str.strip, re.split(r"[\n;]", text.lower()))):
        matches = [
            (match.start(), match, scale)
            for unit, scale in _UNITS[name].items()
            for match in re.finditer(_RANGE.replace("UNIT", unit), line)
        ]
        if not matches or _BOUND.search(line):
            raise ValueError(repr(line))
        for _, match, scale in sorted(matches, key=lambda found: found[0]):
            low, high = (
                float(value.replace(",", "").replace("−", "-")) * scale
                for value in (match["low"], match["high"] or match["low"])
            )
            ranges.append(_range(low, high, repr(line)))
    return tuple(ranges)


def _range(low: float, high: float, source: str) -> Range:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(source)
    return Range(low, high)
