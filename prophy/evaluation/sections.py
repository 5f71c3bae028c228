"""Results as people read them: each JSON of an evaluation becomes a section of tables and plots, nothing recomputed.

A section knows the command that made its numbers. The report and the README are two ways of printing the same sections.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import plotly.graph_objects as go

from prophy.evaluation.results import FOLDER
from prophy.phenomena import BY_ID

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000")

Json = dict | list | str | float | int | bool | None


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """One result.

    Attributes:
        source: file below the evaluation folder.
        sha256: of that file.
        command: that made it; None when it was not recorded.
        weights: SHA-256 of the weights measured, by name.
        pictures: files below the evaluation folder.
        headline: how many of the tables, from the first, sum the others up: a README prints only these.
    """

    source: str
    sha256: str
    title: str
    command: str | None
    weights: dict[str, str]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    plots: tuple[go.Figure, ...] = ()
    pictures: tuple[str, ...] = ()
    headline: int = 1


@dataclass(frozen=True)
class Body:
    """What a reader of one kind of result makes of it."""

    title: str
    tables: tuple[Table, ...]
    plots: tuple[go.Figure, ...] = ()
    notes: tuple[str, ...] = ()
    weights: dict[str, str] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    headline: int = 1


def read_sections(work: Path) -> tuple[Section, ...]:
    """Every result of a work folder, in the order of :data:`KINDS`.

    Raises:
        FileNotFoundError: nothing has been measured.
        ValueError: a result is damaged, or nobody knows how to read it.
    """
    folder = Path(work) / FOLDER
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no results: run `prophy evaluate recognition` or another first")
    order = list(KINDS)
    sections = [(order.index(kind_of(path)), path.name, _section(path)) for path in paths]
    return tuple(section for _, _, section in sorted(sections, key=lambda item: item[:2]))


def kind_of(path: Path) -> str:
    """Which of :data:`KINDS` a file's name begins with; the longest.

    Raises:
        ValueError: none of them.
    """
    kinds = [kind for kind in KINDS if path.stem == kind or path.stem.startswith(f"{kind}-")]
    if not kinds:
        raise ValueError(f"{path} is no result that this release knows: move it out of the folder")
    return max(kinds, key=len)


def _section(path: Path) -> Section:
    raw = path.read_bytes()
    try:
        document = json.loads(raw, parse_constant=_no_constant)
        body = KINDS[kind_of(path)](document, path)
        made_by = document.get("made_by") or {}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration) as error:
        raise ValueError(f"{path} is damaged or of another release ({error!r}): measure it again") from error
    return Section(
        source=path.name,
        sha256=hashlib.sha256(raw).hexdigest(),
        title=body.title,
        command=made_by.get("command"),
        weights=body.weights,
        notes=body.notes,
        tables=body.tables,
        plots=body.plots,
        pictures=body.pictures,
        headline=body.headline,
    )


# --- cells ------------------------------------------------------------------------------------------------------------


def share(interval: dict | float | None) -> str:
    """A share in per cent, with its interval if it has one; what was not measured says so."""
    return _cell(interval, lambda x: f"{100 * x:.1f}", " %")


def number(interval: dict | float | None, digits: int = 3) -> str:
    """A number, with its interval if it has one."""
    return _cell(interval, lambda x: f"{x:.{digits}f}", "")


def signed(interval: dict | float | None, digits: int = 3) -> str:
    """A difference, with its interval if it has one."""
    return _cell(interval, lambda x: f"{x:+.{digits}f}", "")


def _cell(interval: dict | float | None, shown: Callable[[float], str], unit: str) -> str:
    if interval is None:
        return "–"
    if isinstance(interval, int | float):
        return f"{shown(_finite(interval))}{unit}"
    if interval["value"] is None:
        return "not measured (n=0)"
    low, high = shown(_finite(interval["low"])), shown(_finite(interval["high"]))
    return f"{shown(_finite(interval['value']))}{unit} ({low}–{high}, n={int(interval['n'])})"


def _finite(value: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"the file holds {name}")


def name_of(phenomenon: str) -> str:
    """A phenomenon's name by its id."""
    return BY_ID[phenomenon].name


# --- plots ------------------------------------------------------------------------------------------------------------


def bars(title: str, unit: str, rows: dict[str, dict[str, dict]], scale: float = 1.0) -> go.Figure:
    """Grouped bars with intervals: ``rows[label][series]`` is an interval."""
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    figure = go.Figure()
    for i, name in enumerate(series):
        known = {label: row[name] for label, row in rows.items() if row.get(name, {}).get("value") is not None}
        values = [scale * part["value"] for part in known.values()]
        figure.add_bar(
            x=list(known),
            y=values,
            name=name,
            marker={"color": _COLOURS[i % len(_COLOURS)]},
            error_y={
                "array": [scale * part["high"] - v for part, v in zip(known.values(), values, strict=True)],
                "arrayminus": [v - scale * part["low"] for part, v in zip(known.values(), values, strict=True)],
            },
        )
    return _styled(figure, title, unit)


def lines(title: str, unit: str, axis: str, rows: dict[str, tuple[list[float], list[dict]]]) -> go.Figure:
    """Lines with intervals: ``rows[series]`` is the places and the intervals."""
    figure = go.Figure()
    for i, (name, (places, intervals)) in enumerate(rows.items()):
        measured = [(at, part) for at, part in zip(places, intervals, strict=True) if part["value"] is not None]
        intervals = [part for _, part in measured]
        figure.add_scatter(
            x=[at for at, _ in measured],
            y=[part["value"] for part in intervals],
            name=name,
            mode="lines+markers",
            line={"color": _COLOURS[i % len(_COLOURS)]},
            error_y={
                "array": [part["high"] - part["value"] for part in intervals],
                "arrayminus": [part["value"] - part["low"] for part in intervals],
            },
        )
    figure.update_xaxes(title_text=axis)
    return _styled(figure, title, unit)


def heatmap(title: str, labels: list[str], values: list[list[float | None]]) -> go.Figure:
    """A square table of correlations from -1 to 1."""
    figure = go.Figure(go.Heatmap(z=values, x=labels, y=labels, zmin=-1, zmax=1, colorscale="RdBu", zmid=0))
    figure.update_yaxes(autorange="reversed", scaleanchor="x")
    figure.update_layout(title=title, template="plotly_white", height=620, width=720)
    return figure


def _styled(figure: go.Figure, title: str, unit: str) -> go.Figure:
    figure.update_yaxes(title_text=unit)
    figure.update_layout(title=title, template="plotly_white", height=440, margin={"t": 50}, barmode="group")
    return figure


# --- each kind of result ----------------------------------------------------------------------------------------------


def _recogniser(d: dict, path: Path) -> Body:
    del path
    rows = [(name_of(p), share(v), share(d["false_alarms"][p])) for p, v in d["recall"].items()]
    rows += [
        ("an empty stage", "–", share(d["empty_false_alarms"])),
        ("a first frame that never moves", "–", share(d["frozen_false_alarms"])),
    ]
    decoded = () if d["exact_decoded"] is None else (f"after the autoencoder: {share(d['exact_decoded'])}",)
    return Body(
        "The classifier's own error, on held-out real renders",
        (Table("", ("phenomenon", "recall", "false alarms"), tuple(rows)),),
        notes=(f"exact: {share(d['exact'])}", *decoded),
    )


def _recognition(d: dict, path: Path) -> Body:
    del path
    score = d["score"]
    rows = [(name_of(p), share(v), share(score["unasked"][p])) for p, v in score["recall"].items()]
    rows += [
        ("one phenomenon asked for", share(score["single"]), "–"),
        ("two, both found", share(score["both"]), "–"),
        ("exactly what was asked for", share(score["exact"]), "–"),
    ]
    branch = "with the branch" if d["branch"] else "backbone alone"
    return Body(
        f"Recognition of held-out prompts, {branch}",
        (Table("", ("recognised", "share (95 %)", "where not asked for"), tuple(rows)),),
        (bars("Recognised", "%", {name_of(p): {branch: v} for p, v in score["recall"].items()}, 100),),
        notes=(
            f"{len(d['verdicts'])} prompts, {d['steps']} steps, guidance {d['guidance']}",
            f"the classifier is exact on {share(d['classifier_exact'])} of held-out real renders",
        ),
        weights={"model": d["model_sha256"]},
    )


def _localisation(d: dict, path: Path) -> Body:
    del path
    levels = d["levels"]
    head = ("token AP (95 %)", *(f"noise {level['noise']}" for level in levels))
    over = [(name, *(number(level["scores"][name]["ap"]) for level in levels)) for name in levels[0]["scores"]]
    tables = [Table("", head, tuple(over))]
    for level in levels:
        rows = [
            (
                name,
                number(s["ap"]),
                number(s["energy"]),
                number(s["pointing"]),
                number(s["apart"]),
                number(s["ap_pooled"]),
            )
            for name, s in level["scores"].items()
        ]
        head = ("map", "token AP (95 %)", "energy / area", "pointing", "two told apart", "AP pooled")
        tables.append(Table(f"noise {level['noise']}", head, tuple(rows)))
    by_noise = {
        name: ([level["noise"] for level in levels], [level["scores"][name]["ap"] for level in levels])
        for name in levels[0]["scores"]
    }
    own = next(iter(levels[0]["scores"].values()))["ap_by_phenomenon"]
    first = next(iter(levels[0]["scores"]))
    per = tuple(
        (name_of(p), *(number(level["scores"][first]["ap_by_phenomenon"].get(p)) for level in levels)) for p in own
    )
    tables.append(Table(f"{first}, token AP by phenomenon", ("phenomenon", *(str(x["noise"]) for x in levels)), per))
    use = tuple(
        (str(e), share(a), share(b)) for e, (a, b) in enumerate(zip(d["use"]["topk"], d["use"]["top1"], strict=True))
    )
    tables.append(Table("use of the experts", ("expert", "of all assignments", "of first choices"), use))
    semantic = tuple((name_of(p), number(v), number(d["semantic_auc_head"][p])) for p, v in d["semantic_auc"].items())
    tables.append(Table("semantic router, AUC", ("phenomenon", "linear reading", "coarse head as it is"), semantic))
    return Body(
        "Localisation: does the routing find the physics",
        tuple(tables),
        (lines("Token average precision", "AP", "noise", by_noise),),
        notes=(f"{d['clips']} clips of the {d['split']} split; experts matched on {d['matched_on']}",),
        weights={"model": d["model_sha256"]},
    )


def _flow(d: dict, path: Path) -> Body:
    del path
    tables = []
    for title, which in (("whole latent", "everywhere"), ("where the phenomena are", "acting")):
        names = list(d["levels"][0][which])
        rows = [(name, *(number(level[which][name]["loss"]["value"], 5) for level in d["levels"])) for name in names]
        rows += [
            (f"{name} minus backbone", *(signed(level[which][name]["difference"], 5) for level in d["levels"]))
            for name in names[1:]
        ]
        if which in d["levels"][0]["branch_minus_control"]:
            rows.append(
                ("branch minus control", *(signed(level["branch_minus_control"][which], 5) for level in d["levels"]))
            )
        tables.append(Table(title, ("flow loss", *(f"noise {x['noise']}" for x in d["levels"])), tuple(rows)))
    return Body(
        "Flow loss on held-out clips",
        tuple(tables),
        notes=(f"{d['clips']} clips of the {d['split']} split", f"control: {d['control']}"),
        weights={"model": d["model_sha256"]},
    )


def _laws(d: dict, path: Path) -> Body:
    del path
    tables, plots, over = [], [], []
    for split, columns in d["scores"].items():
        laws = next(iter(columns.values()))["by_law"]
        rows = [(law, *(share(c["by_law"][law]["obeyed"]) for c in columns.values())) for law in laws]
        over += [
            (f"{split}: laws obeyed", *(share(c["obeyed"]) for c in columns.values())),
            (f"{split}: law error", *(number(c["error"]) for c in columns.values())),
            (f"{split}: scenes without a track", *(share(c["lost"]) for c in columns.values())),
            (f"{split}: error minus backbone", *(signed(c["minus_backbone"]) for c in columns.values())),
        ]
        tables.append(Table(f"{split}: laws obeyed", ("law", *columns), tuple(rows)))
        by_law = {law: {name: c["by_law"][law]["error"] for name, c in columns.items()} for law in laws}
        plots.append(bars(f"{split}: law error, a lost track is 1", "error", by_law))
    return Body(
        "Laws: do the clips obey the physics they show",
        (Table("", ("mean over laws", *next(iter(d["scores"].values()))), tuple(over)), *tables),
        tuple(plots),
        notes=(f"{d['clips']} clips of each split; a lost track counts as a failure",),
        weights=dict(d["model_sha256"]),
    )


def _vbench(d: dict, path: Path) -> Body:
    del path
    rows = tuple((name, share(v), share(d["normalised"][name])) for name, v in d["raw"].items())
    return Body(
        "VBench quality",
        (Table("", ("dimension", "raw", "normalised"), (*rows, ("quality", "–", share(d["quality"])))),),
        notes=(f"{d['videos']} videos",),
    )


def _videophy2(d: dict, path: Path) -> Body:
    name = path.stem.removeprefix("videophy2-")
    if "protocol" not in d:
        parts = {"ALL": d["everything"], "HARD": d["hard"]}
        rows = tuple((kind, *(signed(part[m], 4) for m in ("pc", "sa", "joint"))) for kind, part in parts.items())
        return Body(
            f"VideoPhy2, paired: {name}",
            (Table("", ("prompts", "PC", "SA", "Joint"), rows),),
            weights={"first": d["model_sha256"][0], "second": d["model_sha256"][1]},
        )
    rows = tuple(
        (kind, share(p["pc"]), share(p["sa"]), share(p["joint"]), f"{p['unscored_pc']}, {p['unscored_sa']}")
        for kind, p in (("ALL", d["everything"]), ("HARD", d["hard"]))
    )
    protocol = d["protocol"]
    return Body(
        f"VideoPhy2: {name}",
        (Table("", ("prompts", "PC (95 %)", "SA (95 %)", "Joint (95 %)", "unscored PC, SA"), rows),),
        notes=(
            f"judge {d['judge']}; prompt set {protocol['prompts_sha256']}; text {protocol['text_field']}; "
            f"n={protocol['prompts']}; seed {protocol['seed']}; branch {'on' if protocol['branch'] else 'off'}",
            "numbers of other papers do not compare: other judges, captions and prompt files",
        ),
        weights={"model": protocol["model_sha256"]},
    )


def _segmenter(d: dict, path: Path) -> Body:
    del path
    rows = tuple((name_of(p), share(v)) for p, v in d["overlap"].items())
    return Body(
        "The segmenter's own error, on held-out real renders",
        (Table("", ("phenomenon", "overlap of tokens (95 %)"), rows),),
        notes=(
            f"token AP {number(d['ap'])}; missed altogether {share(d['missed'])}; "
            f"tokens marked of what is not there {share(d['alarms'])}",
        ),
    )


def _generated_localisation(d: dict, path: Path) -> Body:
    del path
    names = list(d["steps"][0]["scores"])
    rows = [(f"step {s['step']}", *(number(s["scores"][name]["ap"]) for name in names)) for s in d["steps"]]
    head = ("token AP (95 %)", *names)
    last = d["steps"][-1]["scores"] | d["baselines"]
    at_end = tuple(
        (name, number(s["ap"]), number(s["energy"]), number(s["pointing"]), number(s["apart"]))
        for name, s in last.items()
    )
    by_step = {name: ([s["step"] for s in d["steps"]], [s["scores"][name]["ap"] for s in d["steps"]]) for name in names}
    return Body(
        "Localisation while a video is being made, masks by the segmenter",
        (
            Table("last step", ("map", "token AP (95 %)", "energy / area", "pointing", "two told apart"), at_end),
            Table("", head, tuple(rows)),
        ),
        (lines("Token average precision by denoising step", "AP", "step", by_step),),
        notes=(
            f"{d['clips']} clips; the segmenter's token AP on held-out renders is {number(d['segmenter_ap'])}; "
            f"it sees nothing of {d['without_tokens']} of {d['asked']} phenomena asked for",
        ),
        weights={"model": d["model_sha256"]},
    )


def _correlation(d: dict, path: Path) -> Body:
    del path
    names = [name_of(p) for p in d["phenomena"]]
    rows = tuple(
        (f"{names[i]} – {names[j]}", signed(d["logits"][i][j], 2), signed(d["labels"][i][j], 2))
        for i in range(len(names))
        for j in range(i)
    )
    values = [[cell["value"] for cell in row] for row in d["logits"]]
    return Body(
        "Figure 6: correlation of semantic logits between phenomena",
        (Table("", ("phenomena", "semantic logits (95 %)", "label vectors"), rows),),
        (heatmap("semantic logits", names, values), heatmap("label vectors", names, d["labels"])),
        notes=(
            f"{d['prompts']} prompts; Pearson correlation of the two tables {number(d['agreement'], 2)}: "
            "near 1, the router only repeats what the labels say already",
        ),
        weights={"model": d["model_sha256"]},
    )


def _expert_maps(d: dict, path: Path) -> Body:
    del path
    tables = []
    for prompt, frames in zip(d["prompts"], d["shares"], strict=True):
        rows = tuple((f"expert {e}", *(share(frame[e]) for frame in frames)) for e in range(len(frames[0])))
        header = ("share of tokens", *(f"latent frame {t}" for t in range(len(frames))))
        tables.append(Table(prompt, header, rows))
    return Body(
        "Figure 7: where each refinement expert acts",
        tuple(tables),
        weights={"model": d["model_sha256"]},
        pictures=tuple(d["pictures"]),
    )


def _inversion(d: dict, path: Path) -> Body:
    del path
    rows = [(name, number(v, 4), number(d["routing"][name], 3)) for name, v in d["pixels"].items()]
    rows += [(f"inverted minus {name}", signed(v, 4), "–") for name, v in d["inverted_minus"].items()]
    return Body(
        "Figure 8: expert inversion",
        (Table("", ("change", "pixels, 0 to 1 (95 %)", "routing, bits (95 %)"), tuple(rows)),),
        notes=(f"{len(d['prompts'])} prompts; the controls change every token's logits as much, at random",),
        weights={"model": d["model_sha256"]},
        pictures=tuple(d["pictures"]),
    )


def _ablation(d: dict, path: Path) -> Body:
    del path
    measures = tuple(next(iter(d["rows"].values())))
    rows = tuple(
        (f"{name} ({d['runs'][name]} runs)", *(number(row[measure]) for measure in measures))
        for name, row in d["rows"].items()
    )
    notes = ["one run: its interval over clips; several: the mean, its interval over seeds (n of them)"]
    notes += [
        f"{name}: {measure} missing in {n} runs" for name, m in d["unmeasured"].items() for measure, n in m.items()
    ]
    return Body("Ablation", (Table("", ("recipe", *measures), rows),), notes=tuple(notes))


#: file name (or its beginning, before a dash) -> what reads it, in the report's order
KINDS: dict[str, Callable[[dict, Path], Body]] = {
    "laws": _laws,
    "recognition": _recognition,
    "recogniser": _recogniser,
    "localisation": _localisation,
    "generated-localisation": _generated_localisation,
    "segmenter": _segmenter,
    "flow": _flow,
    "correlation": _correlation,
    "expert-maps": _expert_maps,
    "inversion": _inversion,
    "ablation": _ablation,
    "videophy2": _videophy2,
    "vbench": _vbench,
}
