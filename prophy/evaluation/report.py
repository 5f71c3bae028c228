"""One report of everything measured in a work folder, and the README's results: printed from the JSONs, never typed.

prophy evaluate report runs/tiny --out report.html
prophy evaluate readme runs/tiny --readme README.md
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from plotly.offline import get_plotlyjs

from prophy.evaluation.results import FOLDER, write_result
from prophy.evaluation.sections import Section, Table, read_sections
from prophy.files import write_text

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_IN_README = ("laws", "recognition", "localisation", "generated", "flow", "videophy2", "vbench", "ablation")

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
h2{margin-top:2.5rem;border-top:1px solid #ddd;padding-top:1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;display:block;overflow-x:auto}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #e5e5e5;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
code{background:#f4f4f4;padding:.1rem .3rem;overflow-wrap:anywhere}
img{max-width:100%;image-rendering:pixelated}
"""


@dataclass(frozen=True)
class DataSet:
    """A cache of clips that results were measured on: its folder's name, split, size, and a hash of its arrays."""

    name: str
    split: str
    clips: int
    sha256: str


def write_report(work: Path, out: Path) -> int:
    """Write the page, and beside it the same as JSON. Returns the number of sections.

    Raises:
        FileNotFoundError: nothing has been measured.
        ValueError: ``out`` is no .html, or a result is damaged.
    """
    work, out = Path(work), Path(out)
    if out.suffix != ".html":
        raise ValueError(f"{out.name} is no .html: name the report something.html")
    sections, data, judges = read_sections(work), data_sets(work), judge_hashes(work)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, render_page(sections, data, judges, work / FOLDER))
    plain = [
        {
            **{name: getattr(section, name) for name in ("source", "sha256", "title", "command", "weights", "notes")},
            "tables": section.tables,
            "plots": [json.loads(plot.to_json()) for plot in section.plots],
            "pictures": {name: _sha256(work / FOLDER / name) for name in section.pictures},
        }
        for section in sections
    ]
    for part in plain:
        part["tables"] = [asdict(table) for table in part["tables"]]
    document = {"sections": plain, "data": [asdict(one) for one in data], "judges_sha256": judges}
    write_result(out.with_suffix(".json"), document)
    return len(sections)


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


def render_page(sections: Sequence[Section], data: Sequence[DataSet], judges: dict[str, str], folder: Path) -> str:
    """A page that asks no other machine for anything; plotly.js is in it once."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>ProPhy: evidence</title>",
        f"<style>{_STYLE}</style>",
    ]
    if any(section.plots for section in sections):
        parts.append(f"<script>{get_plotlyjs()}</script>")
    parts.append("</head><body><h1>Evidence</h1><p>Every number below comes from the file named beneath its heading, ")
    parts.append("made by the command beside it. Intervals are 95 % bootstrap intervals over clips or prompts.</p>")
    for section in sections:
        parts.append(f"<h2>{_text(section.title)}</h2>")
        command = f"<code>{_text(section.command)}</code>" if section.command else "its command was not recorded"
        parts.append(f"<p>{command}<br><small>{_text(section.source)}, SHA-256 {section.sha256}</small></p>")
        parts += [f"<p>{_text(note)}</p>" for note in section.notes]
        parts += [_html_table(table) for table in section.tables]
        parts += [plot.to_html(full_html=False, include_plotlyjs=False) for plot in section.plots]
        parts += [_picture(folder / name) for name in section.pictures]
        parts += [f"<p><small>weights, {_text(name)}: {_text(h)}</small></p>" for name, h in section.weights.items()]
    rows = tuple((one.name, one.split, str(one.clips), one.sha256) for one in data)
    rows += tuple((name, "trained judge", "–", digest) for name, digest in judges.items())
    parts.append("<h2>Data and judges</h2>")
    parts.append(_html_table(Table("", ("folder or file", "split", "clips", "SHA-256"), rows)))
    return "\n".join([*parts, "</body></html>\n"])


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
        if section.source.removesuffix(".json").split("-")[0] not in _IN_README:
            continue
        parts.append(f"**{section.title}**" + "".join(f" · {note}" for note in section.notes))
        parts += [_markdown_table(table) for table in section.tables[: section.headline]]
        parts.append(f"`{section.command}`" if section.command else "(its command was not recorded)")
    return "\n\n".join(parts) + "\n"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in table.header)
    rows = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    caption = f"<caption>{_text(table.title)}</caption>" if table.title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _markdown_table(table: Table) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    header = (table.title or table.header[0], *table.header[1:])
    return "\n".join([row(header), "|" + "---|" * len(header), *(row(cells) for cells in table.rows)])


def _picture(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: make the figures again")
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<p><img alt='{_text(path.stem)}' src='data:image/png;base64,{data}'></p>"


def _text(value: object) -> str:
    return html.escape(str(value))


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: make it again")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
