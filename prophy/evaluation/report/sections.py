"""Sections: each result of a work folder with what is shown of it, nothing recomputed.

The report, the README and the app print the same sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prophy.evaluation.report.readers import KINDS, body_of, read_result
from prophy.evaluation.report.table import Body
from prophy.evaluation.results import FOLDER, Result
from prophy.files import file_sha256, visible


@dataclass(frozen=True)
class Section:
    """One result.

    Attributes:
        path: its file, in an evaluation folder that also has its pictures.
        sha256: of that file.
        result: what it holds.
        body: what is shown of it.
    """

    path: Path
    sha256: str
    result: Result
    body: Body


def read_sections(work: Path) -> tuple[Section, ...]:
    """Every result of a work folder, in the order of :data:`~prophy.evaluation.report.readers.KINDS`.

    Raises:
        FileNotFoundError: nothing has been measured.
        ValueError: a result is damaged, or nobody knows how to read it.
    """
    return in_order([read_section(path) for path in result_paths(work)])


def in_order(sections: Sequence[Section]) -> tuple[Section, ...]:
    """Sections in the order of :data:`~prophy.evaluation.report.readers.KINDS`."""
    order = list(KINDS)
    return tuple(sorted(sections, key=lambda section: (order.index(section.result.kind), section.path.name)))


def result_paths(work: Path) -> tuple[Path, ...]:
    """The JSONs of a work folder, by name; none has been read.

    Raises:
        FileNotFoundError: there are none.
    """
    folder = Path(work) / FOLDER
    paths = tuple(visible(folder, "*.json"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no results: run `prophy evaluate recognition` or another first")
    return paths


def read_section(path: Path) -> Section:
    """One result.

    Raises:
        ValueError: it is damaged, of no known kind, or one of its pictures is missing.
    """
    result = read_result(path)
    body = body_of(result)
    for name in body.pictures:
        if Path(name).name != name or not name.endswith(".png") or not (path.parent / name).is_file():
            raise ValueError(f"{path.parent / name} is no picture beside {path.name}: make the figures again")
    return Section(path, file_sha256(path), result, body)
