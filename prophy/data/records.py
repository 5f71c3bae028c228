"""A clip as training sees it, the reading of many, and choosing among them: filters and the random subset."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from prophy.data.labels import LabelReport, LabelSet, Tallies, Tally
from prophy.files import sha256, some_of
from prophy.schema import check_fields

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")

#: Characters of a caption that are kept: 8 for each of the 512 tokens that the longest text encoder reads.
MAX_CAPTION = 4096

_UNWRITABLE = re.compile(r"[\x00-\x08\x0e-\x1b\x7f\ud800-\udfff]")


class Range(NamedTuple):
    """From ``low`` to ``high``, both included; equal where the text names one number."""

    low: float
    high: float


@dataclass(frozen=True)
class Quantities:
    """WISA's numeric annotations.

    Attributes:
        densities: ``n0``, g/cm³, one for each main object.
        time: ``n1``, seconds that the event takes; not the clip's duration.
        temperature: ``n2``, degrees Celsius.
    """

    densities: tuple[Range, ...] = ()
    time: Range | None = None
    temperature: Range | None = None


@dataclass(frozen=True)
class ClipRecord:
    """One clip.

    Attributes:
        id: unique in a reading.
        video: the file; None in prompt files, which name none.
        captions: at least one, each of one line. HTML in it is text.
        labels: ids from the reading's label set, in its order; None where nobody said (a folder without labels).
        duration: of the clip, seconds.
        width: of the picture, pixels.
        text_boxes: boxes of written text found in the picture.
        law: the physical law at work, in words; WISA appends it to the caption.
        category: what the clip was collected for, in the data's own words. No part of ``labels``.
        quantities: numeric annotations.
    """

    id: str
    video: Path | None
    captions: tuple[str, ...]
    labels: tuple[str, ...] | None
    duration: float | None = None
    width: float | None = None
    text_boxes: float | None = None
    law: str = ""
    category: str = ""
    quantities: Quantities = field(default=Quantities())

    @property
    def caption(self) -> str:
        """The first caption."""
        return self.captions[0]


class Fault(NamedTuple):
    """A record that was left out.

    Attributes:
        where: file and line or item.
        id: of the record, as far as known.
        reason: the same words for the same fault, so that faults can be counted.
        detail: what it says in this record.
    """

    where: str
    id: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        name = f" ({self.id})" if self.id else ""
        return f"{self.where}{name}: {self.reason}{f': {self.detail}' if self.detail else ''}"


@dataclass(frozen=True)
class Reading:
    """What was read: every row is a record or a fault.

    Attributes:
        records: sorted by id, so that nothing after it depends on the order of a file.
        faults: rows left out, in file order.
        labels: the set that the records' labels come from.
        label_report: entries that were not simply a label's name.
        notes: what was changed or not understood, other than labels, in the rows read.
        unnamed_videos: videos in the folder that no row names.
    """

    records: tuple[ClipRecord, ...]
    faults: tuple[Fault, ...]
    labels: LabelSet
    label_report: LabelReport
    notes: tuple[Tally, ...] = ()
    unnamed_videos: tuple[Path, ...] = ()

    @property
    def rows(self) -> int:
        """Rows in the files."""
        return len(self.records) + len(self.faults)

    def say_notes(self) -> Reading:
        """The reading itself, for chains; what was changed or not understood, labels too, is logged by its kind."""
        for note in self.notes:
            log.warning("%s: %d, such as %s", note.text, note.count, ", ".join(note.examples))
        if unknown := self.label_report.not_understood:
            named = some_of([f"{one.text[:60]!r} ({one.count})" for one in unknown])
            log.warning("labels that name no phenomenon: %s, such as in %s", named, unknown[0].examples[0])
        return self


class RowError(ValueError):
    """A row cannot become a record: ``reason`` as in :class:`Fault`, and the detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def is_plain(text: str) -> bool:
    """Whether a text can be encoded, and shown: no control characters but white space, no half surrogate pairs."""
    return not _UNWRITABLE.search(text)


def is_there(path: Path) -> bool:
    """Whether a path is a file; a name that the file system refuses is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def count_labels(records: Iterable[ClipRecord], labels: LabelSet) -> dict[str, int]:
    """How many clips carry each label, in the set's order."""
    counts = Counter(label_id for record in records for label_id in record.labels or ())
    return {label_id: counts[label_id] for label_id in labels.ids}


def read_captions(texts: Iterable[object], record: str, notes: Tallies) -> tuple[str, ...]:
    """Captions fit to be read: lines joined, ends stripped, the empty and the repeated dropped, cut after
    :data:`MAX_CAPTION` characters at a word's end. What was done is noted.

    Raises:
        RowError: there is none, or one is no text.
    """
    captions: list[str] = []
    empty = 0
    for text in texts:
        if text is None:
            continue
        if not isinstance(text, str):
            raise RowError("a caption is not text", type(text).__name__)
        if not is_plain(text):
            raise RowError("a caption holds control characters or half of a surrogate pair")
        caption = " ".join(text.split())
        if not caption:
            empty += 1
            continue
        if len(text.strip().splitlines()) > 1:
            notes.add("caption of several lines joined into one", record)
        if len(caption) > MAX_CAPTION:
            notes.add(f"caption cut after {MAX_CAPTION:,} characters", record)
            # A space right after the limit means that the last word is whole.
            caption = caption[: MAX_CAPTION + 1].rpartition(" ")[0] or caption[:MAX_CAPTION]
        if caption not in captions:
            captions.append(caption)
    if not captions:
        raise RowError("no caption")
    for _ in range(empty):
        notes.add("empty caption beside others dropped", record)
    return tuple(captions)


def read_number(value: object) -> float | None:
    """A number of at least 0, given as a number or as text; None where nothing is given.

    Raises:
        ValueError: it is something else.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not a number")
    try:
        number = float(value)
    except OverflowError:  # JSON's whole numbers have no bound
        number = math.inf
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{value!r} is not a number of at least 0")
    return number


def find_videos(folder: Path) -> tuple[Path, ...]:
    """Files with a video's suffix in a folder and the folders below, hidden files and folders left out, sorted."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    shown = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return tuple(sorted(shown))


Bound = Annotated[float, Field(ge=0, le=1e9)]


@dataclass(frozen=True)
class Filters:
    """Which clips to keep; None asks nothing. Bounds are included.

    A clip that does not state a field is kept by that field's filters, and counted; with ``keep_unstated`` false it
    goes. WISA's own reader keeps it as well.

    Attributes:
        min_duration: seconds.
        max_duration: seconds.
        min_width: pixels.
        max_text_boxes: boxes of written text. WISA's own reader keeps at most 1.
        keep_unstated: keep clips that do not state what is asked.
    """

    min_duration: Bound | None = None
    max_duration: Bound | None = None
    min_width: Bound | None = None
    max_text_boxes: Bound | None = None
    keep_unstated: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        low, high = self.min_duration, self.max_duration
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_duration={self.min_duration} exceeds max_duration={self.max_duration}: swap them")


_FILTERED = {
    "min_duration": "duration",
    "max_duration": "duration",
    "min_width": "width",
    "max_text_boxes": "text_boxes",
}


@dataclass(frozen=True)
class FilterCount:
    """What one filter did, among the clips that the filters before it left.

    Attributes:
        name: of :class:`Filters`.
        bound: asked for.
        removed: clips that state a value beyond the bound.
        unstated: clips that state none.
        unstated_kept: whether those were kept.
    """

    name: str
    bound: float
    removed: int
    unstated: int
    unstated_kept: bool


def apply_filters(
    records: Sequence[ClipRecord], filters: Filters
) -> tuple[tuple[ClipRecord, ...], tuple[FilterCount, ...]]:
    """The clips that pass, and one count for each filter in use, in the order they were applied in."""
    kept = tuple(records)
    counts = []
    for name, attribute in _FILTERED.items():
        bound = getattr(filters, name)
        if bound is None:
            continue
        unstated = {record.id for record in kept if getattr(record, attribute) is None}
        beyond = {
            record.id
            for record in kept
            if record.id not in unstated
            and (getattr(record, attribute) < bound if name.startswith("min") else getattr(record, attribute) > bound)
        }
        gone = beyond if filters.keep_unstated else beyond | unstated
        kept = tuple(record for record in kept if record.id not in gone)
        counts.append(FilterCount(name, bound, len(beyond), len(unstated), filters.keep_unstated))
    return kept, tuple(counts)


def random_subset(records: Sequence[ClipRecord], count: int, seed: int = 0) -> tuple[ClipRecord, ...]:
    """``count`` clips drawn at random, sorted by id.

    Each id has its place from the seed's hash of it, so the choice depends neither on the order of the clips nor on a
    library's generator, a smaller subset is part of a larger one, and a clip that goes is replaced by one other.

    Raises:
        ValueError: there are fewer clips, or fewer than one is asked for.
    """
    if not 1 <= count <= len(records):
        raise ValueError(f"a sample of {count:,} is not to be had from {len(records):,} clips: use 1 to {len(records)}")
    ranked = sorted(records, key=lambda record: sha256(f"{seed}\n{record.id}"))
    return tuple(sorted(ranked[:count], key=lambda record: record.id))
