"""Sections as HTML, in the pieces that the report and the app's Evidence tab are made of; plots go between them.

Whatever came from a file is escaped.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from prophy.evaluation.report.format import below, sentence, texts, value
from prophy.evaluation.report.readers import KINDS
from prophy.evaluation.report.sections import Section
from prophy.evaluation.report.table import Headline, Table

STYLE = Path(__file__).parent / "evidence.css"
SCRIPT = Path(__file__).parent / "evidence.js"
_ROWS = 20  # of a table that stands open


def opening(sections: Sequence[Section]) -> str:
    """What is said first, the numbers to see first, each a link to its section, and the table of contents."""
    tiles = "".join(_tile(one, section) for section in sections for one in section.body.headlines)
    return (
        "<p>Every number below comes from the file named beneath it, made by the command beside that. Intervals are "
        f'95 % bootstrap intervals over clips or prompts.</p><ul class="ev-tiles">{tiles}</ul>{contents(sections)}'
    )


def contents(sections: Sequence[Section]) -> str:
    """The table of contents: a link to each section."""
    links = "".join(f'<li><a href="#{quote(_anchor(one))}">{text(one.body.title)}</a></li>' for one in sections)
    return f'<nav class="ev-contents" aria-label="Contents"><h3>Contents</h3><ol>{links}</ol></nav>'


def head(section: Section) -> str:
    """A section's title and notes; its plots follow."""
    notes = "".join(f"<p>{text(sentence(note))}</p>" for note in section.body.notes)
    return f'<header class="ev-head" id="{_anchor(section)}"><h2>{text(section.body.title)}</h2>{notes}</header>'


def rest(section: Section) -> str:
    """What follows a section's plots: pictures, tables, command, hashes."""
    body = section.body
    parts = [_picture(section.path.parent / name) for name in body.pictures]
    # Where plots show what a table says, it stands folded.
    parts += [_table(table, i < body.headline and not body.plots) for i, table in enumerate(body.tables)]
    parts.append(
        command_line(command)
        if (command := section.result.made_by.command)
        else '<p class="ev-hash">Its command was not recorded.</p>'
    )
    weights = {f"weights, {name}": digest for name, digest in section.result.weights.items()}
    hashes = {section.path.name: section.sha256, **weights}
    parts += [f'<p class="ev-hash">{text(name)}: SHA-256 {text(digest)}</p>' for name, digest in hashes.items()]
    return "".join(parts)


def unmeasured(sections: Sequence[Section]) -> str:
    """The kinds of results that are not there, each with the command that measures it; empty if none is missing."""
    known = {section.result.kind for section in sections}
    missing = "".join(
        f"<dt>{text(kind.asks[0].upper() + kind.asks[1:])}</dt><dd>{command_line(kind.result.command)}</dd>"
        for name, kind in KINDS.items()
        if name not in known
    )
    return f'<header class="ev-head"><h2>Not measured here</h2></header><dl>{missing}</dl>' if missing else ""


def command_line(command: str) -> str:
    """A command and what copies it; ``evidence.js`` listens."""
    return f'<div class="ev-command"><code>{text(command)}</code><button type="button">Copy</button></div>'


def text(value: object) -> str:
    """Anything, as text."""
    return html.escape(str(value))


def _tile(one: Headline, section: Section) -> str:
    small = "".join(f"<small>{text(part)}</small>" for part in below(one))
    link = quote(_anchor(section))
    return f'<li><a href="#{link}">{text(one.label)}<strong>{text(value(one.cell))}</strong>{small}</a></li>'


def _anchor(section: Section) -> str:
    return f"evidence-{quote(section.path.stem)}"


def _table(table: Table, is_open: bool) -> str:
    header = "".join(f"<th>{text(cell)}</th>" for cell in table.header)
    rows = "".join(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in texts(row))}</tr>" for row in table.rows)
    grid = f'<div class="ev-scroll"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>'
    if is_open and len(table.rows) <= _ROWS:
        return (f"<h3>{text(table.title)}</h3>" if table.title else "") + grid
    return f"<details><summary>{text(table.title or 'every number')} ({len(table.rows)} rows)</summary>{grid}</details>"


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{text(path.stem)}" src="data:image/png;base64,{data}">'
    return f'<div class="ev-scroll" id="evidence-picture-{text(path.name)}">{image}</div>'
