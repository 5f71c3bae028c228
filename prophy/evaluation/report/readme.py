"""The README's results, printed from what was measured in a work folder, never typed.

prophy evaluate readme runs/tiny --readme README.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prophy.evaluation.report.format import in_markdown, sentence
from prophy.evaluation.report.readers import KINDS
from prophy.evaluation.report.sections import Section, read_sections
from prophy.files import write_text

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def update_readme(work: Path, readme: Path) -> bool:
    """Rewrite what stands between the markers :data:`BEGIN` and :data:`END`. Returns whether anything changed.

    Raises:
        FileNotFoundError: no README, or nothing has been measured.
        ValueError: the markers are missing or stand twice, or a result is damaged.
    """
    readme = Path(readme)
    if not readme.is_file():
        raise FileNotFoundError(f"{readme} is missing: give --readme")
    before = readme.read_text(encoding="utf-8")
    if before.count(BEGIN) != 1 or before.count(END) != 1 or before.index(BEGIN) > before.index(END):
        raise ValueError(f"{readme} needs the lines {BEGIN} and {END}, once each: the results go between them")
    head, rest = before.split(BEGIN)
    after = f"{head}{BEGIN}\n\n{render_markdown(read_sections(work))}\n{END}{rest.split(END)[1]}"
    if after == before:
        return False
    write_text(readme, after)
    return True


def render_markdown(sections: Sequence[Section]) -> str:
    """The sections that belong in a README, each with the table that sums it up and its command."""
    parts = []
    for section in sections:
        if not KINDS[section.result.kind].in_readme:
            continue
        body, command = section.body, section.result.made_by.command
        parts.append(" · ".join([f"**{body.title}**", *map(sentence, body.notes)]))
        parts += [in_markdown(table) for table in body.tables[: body.headline]]
        parts.append(f"`{command}`" if command else "(its command was not recorded)")
    return "\n\n".join(parts) + "\n"
