"""One report of everything measured in a work folder, and the README's results: printed from the JSONs, never typed.

prophy evaluate report runs/tiny --out report.html
prophy evaluate readme runs/tiny --readme README.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from plotly.offline import get_plotlyjs

from prophy.evaluation.report.format import Table
from prophy.evaluation.report.html import SCRIPT, STYLE, head, opening, rest, unmeasured
from prophy.evaluation.report.sections import Section, read_sections, result_paths
from prophy.evaluation.results import FOLDER, write_result
from prophy.files import write_text

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_IN_README = ("laws", "recognition", "localisation", "generated", "flow", "videophy2", "vbench", "ablation")

#: Of the page around the evidence; the app has its own
_PAGE = """
:root{color-scheme:light dark;--pp-ink:#1a1a1a;--pp-quiet:#64748b;--pp-line:#e2e8f0;--pp-paper:#fff;--pp-sunk:#f8fafc;
--pp-accent:#0072b2}
@media(prefers-color-scheme:dark){:root{--pp-ink:#f1f5f9;--pp-quiet:#94a3b8;--pp-line:#334155;--pp-paper:#0b0f19;
--pp-sunk:#131a2a;--pp-accent:#409bce}}
body{font-family:system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;background:var(--pp-paper)}
"""


@dataclass(frozen=True)
class DataSet:
    """A cache of clips that results were measured on: its folder's name, split, size, and a hash of its arrays."""

    name: str
    split: str
    clips: int
    sha256: str


@dataclass(frozen=True)
class DataResult:
    """The data and the judges behind a work folder's results: too large to ship, so only their hashes."""

    sets: tuple[DataSet, ...]
    judges_sha256: dict[str, str]


def write_report(work: Path, out: Path) -> int:
    """Write the page, and beside it the same as JSON. Returns the number of sections.

    The hashes of the data and the judges become a result of the work folder themselves, ``evaluation/data.json``: its
    ``evaluation/`` then says everything, also where the rest is too large to go.

    Raises:
        FileNotFoundError: nothing has been measured.
        ValueError: ``out`` is no .html, or a result is damaged.
    """
    work, out = Path(work), Path(out)
    if out.suffix != ".html":
        raise ValueError(f"{out.name} is no .html: name the report something.html")
    result_paths(work)
    data = DataResult(data_sets(work), judge_hashes(work))
    if data.sets or data.judges_sha256:
        write_result(work / FOLDER / "data.json", data)
    sections = read_sections(work)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, render_page(sections))
    write_result(out.with_suffix(".json"), {"sections": [_plain(section) for section in sections]})
    return len(sections)


def _plain(section: Section) -> dict[str, object]:
    body = section.body
    return {
        "source": section.path.name,
        "sha256": section.sha256,
        "title": body.title,
        "command": section.command,
        "weights": body.weights,
        "notes": body.notes,
        "headlines": [asdict(one) for one in body.headlines],
        "tables": [asdict(table) for table in body.tables],
        "plots": [json.loads(plot.to_json()) for plot in body.plots],
        "pictures": {name: _sha256(section.path.parent / name) for name in body.pictures},
    }


def data_sets(work: Path) -> tuple[DataSet, ...]:
    """Every latent cache of a work folder."""
    found = []
    for marker in sorted(Path(work).glob("*/cache.json")):
        about = json.loads(marker.read_text())
        digest = hashlib.sha256()
        for path in sorted(marker.parent.glob("*.npy")):
            digest.update(f"{path.name}:{_sha256(path)}\n".encode())
        found.append(DataSet(marker.parent.name, str(about["split"]), int(about["count"]), digest.hexdigest()))
    return tuple(found)


def judge_hashes(work: Path) -> dict[str, str]:
    """SHA-256 of the small judges that were trained in a work folder, by file name."""
    return {path.name: _sha256(path) for path in sorted(Path(work).glob("*.safetensors"))}


def render_page(sections: Sequence[Section]) -> str:
    """A page that asks no other machine for anything; plotly.js is in it once."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>ProPhy: evidence</title>",
        "<meta name='viewport' content='width=device-width'>",
        f"<style>{_PAGE}{STYLE.read_text(encoding='utf-8')}</style>",
    ]
    if any(section.body.plots for section in sections):
        parts.append(f"<script>{get_plotlyjs()}</script>")
    parts.append(f"</head><body class='evidence'><h1>Evidence</h1>{opening(sections)}")
    for section in sections:
        drawn = [
            plot.to_html(full_html=False, include_plotlyjs=False, config={"responsive": True, "displaylogo": False})
            for plot in section.body.plots
        ]
        parts += [head(section), f"<div class='ev-plots'>{''.join(drawn)}</div>", rest(section)]
    parts.append(unmeasured(sections))
    return "\n".join([*parts, f"<script>{SCRIPT.read_text(encoding='utf-8')}</script></body></html>\n"])


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
        body = section.body
        if section.path.stem.split("-")[0] not in _IN_README:
            continue
        parts.append(f"**{body.title}**" + "".join(f" · {note}" for note in body.notes))
        parts += [_markdown_table(table) for table in body.tables[: body.headline]]
        parts.append(f"`{section.command}`" if section.command else "(its command was not recorded)")
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    header = (table.title or table.header[0], *table.header[1:])
    return "\n".join([row(header), "|" + "---|" * len(header), *(row(cells) for cells in table.rows)])


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: make it again")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
