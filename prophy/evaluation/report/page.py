"""One report of everything measured in a work folder, as a page and as JSON: printed from the results, never typed.

prophy evaluate report runs/tiny --out report.html
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from plotly.offline import get_plotlyjs

from prophy.evaluation.report.format import interval, sentence, texts, value
from prophy.evaluation.report.html import SCRIPT, STYLE, head, opening, rest, unmeasured
from prophy.evaluation.report.sections import Section, read_sections, result_paths
from prophy.evaluation.results import stamp, write_json
from prophy.evaluation.results.data import DataResult, DataSet
from prophy.files import file_sha256, sha256, visible, write_text
from prophy.schema import read_object

_CACHE_CURE = "make the cache again, or move it elsewhere"
#: Of the page around the evidence; the app has its own
_PAGE = """
:root{color-scheme:light dark;--pp-ink:#1a1a1a;--pp-quiet:#64748b;--pp-line:#e2e8f0;--pp-paper:#fff;--pp-sunk:#f8fafc;
--pp-accent:#0072b2}
@media(prefers-color-scheme:dark){:root{--pp-ink:#f1f5f9;--pp-quiet:#94a3b8;--pp-line:#334155;--pp-paper:#0b0f19;
--pp-sunk:#131a2a;--pp-accent:#409bce}}
body{font-family:system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;background:var(--pp-paper)}
"""


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
        data.save(work)
    sections = read_sections(work)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, render_page(sections))
    shown = [_shown(section) for section in sections]
    write_json(out.with_suffix(".json"), {"made_by": stamp("report", out.stem), "sections": shown})
    return len(sections)


def _shown(section: Section) -> dict[str, object]:
    """A section as it stands on the page, all numbers as text."""
    body = section.body
    return {
        "source": section.path.name,
        "sha256": section.sha256,
        "title": body.title,
        "command": section.result.made_by.command,
        "weights": section.result.weights,
        "notes": [sentence(note) for note in body.notes],
        "headlines": [
            {
                "label": one.label,
                "value": value(one.cell),
                "interval": interval(one.cell) or one.of,
                "beside": sentence(one.beside),
            }
            for one in body.headlines
        ],
        "tables": [
            {"title": table.title, "header": table.header, "rows": [texts(row) for row in table.rows]}
            for table in body.tables
        ],
        "plots": [json.loads(plot.to_json()) for plot in body.plots],
        "pictures": {name: file_sha256(section.path.parent / name) for name in body.pictures},
    }


def data_sets(work: Path) -> tuple[DataSet, ...]:
    """Every latent cache of a work folder.

    Raises:
        ValueError: the description of one is damaged. One line.
    """
    found = []
    for marker in sorted(Path(work).glob("*/cache.json")):
        about = read_object(marker, _CACHE_CURE)
        if "made_by" not in about:  # of other clips
            continue
        arrays = visible(marker.parent, "*.npy")
        content = sha256("".join(f"{path.name}:{file_sha256(path)}\n" for path in arrays))
        try:
            found.append(DataSet(marker.parent.name, about["split"], about["count"], content))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{marker} is damaged ({error}): {_CACHE_CURE}") from None
    return tuple(found)


def judge_hashes(work: Path) -> dict[str, str]:
    """SHA-256 of the small judges that were trained in a work folder, by file name."""
    return {path.name: file_sha256(path) for path in visible(Path(work), "*.safetensors")}


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
