"""Results in documents, printed from what was measured in a work folder, never typed.

prophy evaluate readme runs/tiny --readme README.md docs/RESULTS.md

Between the markers ``numbers`` of a document go the numbers to see first, between the markers ``results`` the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from prophy.evaluation.report.format import below, in_markdown, sentence, value
from prophy.evaluation.report.readers import KINDS
from prophy.evaluation.report.sections import Section, read_sections
from prophy.files import write_text


def begin(name: str) -> str:
    """The line before what is printed."""
    return f"<!-- {name}: begin -->"


def end(name: str) -> str:
    """The line behind it."""
    return f"<!-- {name}: end -->"


def update_readme(work: Path, readme: Path) -> bool:
    """Rewrite what stands between the markers of a document. Returns whether anything changed.

    Raises:
        FileNotFoundError: no such document, or nothing has been measured.
        ValueError: it has no markers, or one that stands twice, or a result is damaged.
    """
    readme = Path(readme)
    if not readme.is_file():
        raise FileNotFoundError(f"{readme} is missing: give --readme")
    before = after = readme.read_text(encoding="utf-8")
    found = [name for name in PRINTED if begin(name) in before or end(name) in before]
    if not found:
        lines = " or ".join(f"{begin(name)} and {end(name)}" for name in PRINTED)
        raise ValueError(f"{readme} needs the lines {lines}: the results go between them")
    sections = read_sections(work)
    for name in found:
        if (
            after.count(begin(name)) != 1
            or after.count(end(name)) != 1
            or after.index(begin(name)) > after.index(end(name))
        ):
            raise ValueError(
                f"{readme} needs the lines {begin(name)} and {end(name)}, once each: the results go between them"
            )
        head, rest = after.split(begin(name))
        after = f"{head}{begin(name)}\n\n{PRINTED[name](sections)}\n{end(name)}{rest.split(end(name))[1]}"
    if after == before:
        return False
    write_text(readme, after)
    return True


def numbers_in_markdown(sections: Sequence[Section]) -> str:
    """The first number of each kind that belongs in a README, beside what it must be read against."""
    lines = ["| | measured | read against |", "|---|---|---|"]
    for section in sections:
        if KINDS[section.result.kind].in_readme and section.body.headlines:
            one = section.body.headlines[0]
            beside = sentence(one.beside)
            given = ", ".join(part for part in below(one) if part != beside)
            measured = f"**{value(one.cell)}**" + (f" ({given})" if given else "")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in (one.label, measured, beside)) + " |")
    return "\n".join(lines) + "\n"


def results_in_markdown(sections: Sequence[Section]) -> str:
    """The tables that sum up what was measured, each with its command."""
    parts = []
    for section in sections:
        if not KINDS[section.result.kind].has_tables:
            continue
        body, command = section.body, section.result.made_by.command
        parts.append(" · ".join([f"**{body.title}**", *map(sentence, body.notes)]))
        parts += [in_markdown(table) for table in body.tables[: body.headline]]
        parts.append(f"`{command}`" if command else "(its command was not recorded)")
    return "\n\n".join(parts) + "\n"


#: by the name of the markers, what is printed between them
PRINTED: dict[str, Callable[[Sequence[Section]], str]] = {
    "numbers": numbers_in_markdown,
    "results": results_in_markdown,
}
