"""Results as people read them: each JSON of an evaluation becomes a section of tables and plots, nothing recomputed.

A section knows the command that made its numbers. The report, the README and the app print the same sections.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prophy.evaluation.report.format import Body
from prophy.evaluation.report.readers import KINDS
from prophy.evaluation.results import FOLDER

_DAMAGE = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    StopIteration,
    ArithmeticError,
    RecursionError,
)


@dataclass(frozen=True)
class Section:
    """One result.

    Attributes:
        path: its file, in an evaluation folder that also has its pictures.
        sha256: of that file.
        command: that made it; None when it was not recorded.
        body: what is shown of it.
    """

    path: Path
    sha256: str
    command: str | None
    body: Body


def read_sections(work: Path) -> tuple[Section, ...]:
    """Every result of a work folder, in the order of :data:`KINDS`.

    Raises:
        FileNotFoundError: nothing has been measured.
        ValueError: a result is damaged, or nobody knows how to read it.
    """
    return in_order([read_section(path) for path in result_paths(work)])


def in_order(sections: Sequence[Section]) -> tuple[Section, ...]:
    """Sections in the order of :data:`KINDS`."""
    order = list(KINDS)
    return tuple(sorted(sections, key=lambda section: (order.index(kind_of(section.path)), section.path.name)))


def result_paths(work: Path) -> tuple[Path, ...]:
    """The JSONs of a work folder, by name; none has been read.

    Raises:
        FileNotFoundError: there are none.
    """
    folder = Path(work) / FOLDER
    paths = tuple(sorted(folder.glob("*.json")))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no results: run `prophy evaluate recognition` or another first")
    return paths


def read_section(path: Path) -> Section:
    """One result.

    Raises:
        ValueError: it is damaged, of no known kind, or one of its pictures is missing.
    """
    kind = KINDS[kind_of(path)]
    raw = path.read_bytes()
    try:
        document = json.loads(raw, parse_constant=_no_constant)
        body = kind.read(document, path)
        command = (document.get("made_by") or {}).get("command")
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged or of another release ({error!r}): measure it again") from error
    for name in body.pictures:
        if Path(name).name != name or not name.endswith(".png") or not (path.parent / name).is_file():
            raise ValueError(f"{path.parent / name} is no picture beside {path.name}: make the figures again")
    return Section(path, hashlib.sha256(raw).hexdigest(), command, body)


def in_words(body: Body) -> str:
    """Title, tables, notes and headlines as lines of text, for a terminal."""
    lines = [body.title, ""]
    for table in body.tables:
        rows = ((table.title or table.header[0], *table.header[1:]), *table.rows)
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
        lines.append("")
    lines += body.notes
    lines += [
        " · ".join(filter(None, (f"{one.label}: {one.value}", one.interval, one.beside))) for one in body.headlines
    ]
    return "\n".join(lines)


def kind_of(path: Path) -> str:
    """Which of :data:`KINDS` a file's name begins with; the longest.

    Raises:
        ValueError: none of them.
    """
    kinds = [kind for kind in KINDS if path.stem == kind or path.stem.startswith(f"{kind}-")]
    if not kinds:
        raise ValueError(f"{path} is no result that this release knows: move it out of the folder")
    return max(kinds, key=len)


def _no_constant(name: str) -> float:
    raise ValueError(f"the file holds {name}")
