"""Cells, tables and bodies as text: for a terminal, and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from prophy.evaluation.report.table import Body, Cell, Headline, Row, Table, Words
from prophy.evaluation.results import Interval


def text(part: str | Cell) -> str:
    """A cell with its interval if it has one; what was not measured says so. Text stays as it is."""
    if isinstance(part, str):
        return part
    bounds = interval(part) if part.with_interval else ""
    return f"{value(part)} ({bounds})" if bounds else value(part)


def value(cell: Cell) -> str:
    """A cell's number and unit."""
    if cell.number is None:
        return "not measured" if isinstance(cell.value, Interval) else "–"
    return f"{cell.number:{cell.spec}}{cell.unit}"


def interval(cell: Cell) -> str:
    """A cell's bounds and n; empty where it has no interval."""
    if not isinstance(cell.value, Interval):
        return ""
    if not cell.value.measured:
        return "n=0"
    low, high = (f"{cell.scale * bound:{cell.spec}}" for bound in (cell.value.low, cell.value.high))
    return f"{low}{cell.between}{high}, n={cell.value.n}"


def sentence(words: Words) -> str:
    """A text with its cells written out."""
    return words if isinstance(words, str) else "".join(map(text, words))


def header_of(table: Table) -> tuple[str, ...]:
    """The header's texts, the table's title for the first if it has one."""
    return (table.title or table.header[0], *table.header[1:])


def texts(row: Row) -> tuple[str, ...]:
    """A row's name and cells."""
    return (row.name, *map(text, row.cells))


def in_words(body: Body) -> str:
    """Title, tables, notes and headlines as lines of text, for a terminal."""
    lines = [body.title, ""]
    for table in body.tables:
        rows = (header_of(table), *map(texts, table.rows))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
        lines.append("")
    heads = ((f"{one.label}: {value(one.cell)}", *below(one)) for one in body.headlines)
    return "\n".join([*lines, *map(sentence, body.notes), *map(" · ".join, heads)])


def below(one: Headline) -> tuple[str, ...]:
    """What stands below a headline's number: its interval, and what it must be read against."""
    return tuple(filter(None, (interval(one.cell) or one.of, sentence(one.beside))))


def in_markdown(table: Table) -> str:
    """A table for a README."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    header = header_of(table)
    return "\n".join([line(header), "|" + "---|" * len(header), *(line(texts(row)) for row in table.rows)])
