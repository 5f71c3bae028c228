"""What a reader makes of one result: typed cells, and the tables, plots and headlines that they stand in.

A cell is a value and how it is written; :mod:`prophy.evaluation.report.format` writes it, at the very end. Tables are
printed and plotted from the same cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prophy.evaluation.results import Interval

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Cell:
    """A value and how it is written.

    Attributes:
        value: an interval, or a number without one; None where there is nothing to measure, NaN where nothing could be.
        spec: format specification of the number.
        scale: of the value, written and plotted.
        unit: after the number.
        between: the bounds.
        with_interval: whether bounds and n are written.
    """

    value: Interval | float | None
    spec: str = ".3f"
    scale: float = 1
    unit: str = ""
    between: str = "–"
    with_interval: bool = True

    @property
    def bare(self) -> Cell:
        """The same without its interval."""
        return replace(self, with_interval=False)

    @property
    def number(self) -> float | None:
        """The value in the cell's scale; None where there is none."""
        value = self.value.value if isinstance(self.value, Interval) else self.value
        return None if value is None or math.isnan(value) else self.scale * value

    @property
    def spread(self) -> tuple[float, float] | None:
        """How far the interval reaches below and above the value, in the cell's scale; None without one."""
        if not isinstance(self.value, Interval) or not self.value.measured:
            return None
        return self.scale * (self.value.value - self.value.low), self.scale * (self.value.high - self.value.value)


Words = str | tuple[str | Cell, ...]  #: a text, or one with cells in it


@dataclass(frozen=True)
class Row:
    """Cells, or texts, and what they are of."""

    name: str
    cells: tuple[str | Cell, ...]


def row(name: str, *cells: str | Cell) -> Row:
    """A row of a table."""
    return Row(name, cells)


@dataclass(frozen=True)
class Table:
    """Rows of cells; the header has a text for the rows' names and one for each column.

    Raises:
        ValueError: a row of another length than the header.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if any(len(one.cells) != len(self.header) - 1 for one in self.rows):
            raise ValueError(f"the table {self.title or self.header} has rows of other lengths than its header")

    def with_rows(self, *rows: Row) -> Table:
        """The same with more rows below."""
        return replace(self, rows=(*self.rows, *rows))

    def transposed(self) -> Table:
        """Rows and columns exchanged."""
        header = (self.header[0], *(one.name for one in self.rows))
        columns = enumerate(self.header[1:])
        return Table(self.title, header, tuple(row(name, *(one.cells[i] for one in self.rows)) for i, name in columns))


@dataclass(frozen=True)
class Headline:
    """One number to see first.

    Attributes:
        label: what it is.
        cell: the number.
        beside: what it must be read against: a control, a baseline, whether the interval holds 0.
        of: what it was measured on, where the cell has no interval that says so.
    """

    label: str
    cell: Cell
    beside: Words = ""
    of: str = ""


@dataclass(frozen=True)
class Body:
    """One result as its reader shows it.

    Attributes:
        pictures: PNG files beside the result's own.
        headline: how many of the tables, from the first, sum the others up.
    """

    title: str
    tables: tuple[Table, ...]
    plots: tuple[go.Figure, ...] = ()
    headlines: tuple[Headline, ...] = ()
    notes: tuple[Words, ...] = ()
    pictures: tuple[str, ...] = ()
    headline: int = 1


def share(value: Interval | float | None) -> Cell:
    """A share, in per cent."""
    return Cell(value, ".1f", 100, " %")


def number(value: Interval | float | None, digits: int = 3) -> Cell:
    """A number."""
    return Cell(value, f".{digits}f")


def signed(value: Interval | float | None, digits: int = 3) -> Cell:
    """A difference."""
    return Cell(value, f"+.{digits}f", between=" to ")


def points(value: Interval | float | None) -> Cell:
    """A difference of shares, in percentage points."""
    return Cell(value, "+.1f", 100, " points", " to ")


def count(value: int) -> Cell:
    """A whole number."""
    return Cell(value, "d")


def listed(cells: Mapping[str, Cell]) -> Words:
    """Names and bare cells, one after the other: what a headline is read against."""
    parts: list[str | Cell] = []
    for name, cell in cells.items():
        parts += [f"{', ' if parts else ''}{name} ", cell.bare]
    return tuple(parts)


def verdict(difference: Interval, *, lower_is_better: bool = False) -> str:
    """What a difference says: better, worse, or nothing where its interval holds 0."""
    if not difference.measured:
        return ""
    if difference.holds_zero:
        return "no difference shown: the interval holds 0"
    return "better" if (difference.value < 0) == lower_is_better else "worse"
