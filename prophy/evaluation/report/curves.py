"""Training curves: what the trainings of a work folder logged, on one page that needs no network.

prophy evaluate curves --work runs/tiny
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from prophy.files import replacing
from prophy.training.flow import NOISE_LEVELS

_COLOURS = ("#0072b2", "#009e73", "#e69f00", "#d55e00")  #: of the noise levels, told apart by colour-blind eyes too
_TERM_COLOURS = ("#56b4e9", "#000000", "#cc79a7", "#009e73", "#e69f00")  #: of a training loss's terms


@dataclass(frozen=True)
class TrainingLog:
    """One training's log.

    Attributes:
        name: of the file, such as ``transformer``.
        steps: at which it was written.
        held_out: flow loss at each of :data:`NOISE_LEVELS`, by level.
        training: the terms of the training loss, by name.
    """

    name: str
    steps: list[int]
    held_out: dict[float, list[float]]
    training: dict[str, list[float]]


def read_log(path: Path) -> TrainingLog:
    """Read a ``.jsonl`` of the transformer's or the branch's training.

    Raises:
        ValueError: it is no such log.
    """
    try:
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        terms = [row["train"] if isinstance(row["train"], dict) else {"flow": row["train"]} for row in rows]
        return TrainingLog(
            name=Path(path).stem,
            steps=[int(row["step"]) for row in rows],
            held_out={level: [float(row[str(level)]) for row in rows] for level in NOISE_LEVELS},
            training={name: [float(term[name]) for term in terms] for name in (terms[0] if terms else ())},
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not the log of a training ({error!r}): move it out of the folder") from error


def curves_figure(logs: list[TrainingLog]) -> go.Figure:
    """One column for each training: its losses on held-out clips above, its own loss's terms below."""
    titles = [f"{log.name}: held-out flow loss" for log in logs] + [f"{log.name}: training loss" for log in logs]
    figure = make_subplots(rows=2, cols=len(logs), subplot_titles=titles, vertical_spacing=0.14)
    colours: dict[str, str] = {}
    for column, log in enumerate(logs, start=1):
        for level, colour in zip(NOISE_LEVELS, _COLOURS, strict=True):
            figure.add_scatter(
                x=log.steps,
                y=log.held_out[level],
                name=f"noise {level}",
                legendgroup="noise",
                showlegend=column == 1,
                mode="lines+markers",
                line={"color": colour},
                row=1,
                col=column,
            )
        for term, values in log.training.items():
            first = term not in colours
            colour = colours.setdefault(term, _TERM_COLOURS[len(colours) % len(_TERM_COLOURS)])
            figure.add_scatter(
                x=log.steps,
                y=values,
                name=term,
                legendgroup=term,
                showlegend=first,
                mode="lines+markers",
                line={"color": colour},
                row=2,
                col=column,
            )
    figure.update_xaxes(title_text="step", row=2)
    figure.update_yaxes(type="log", minor={"showgrid": True})
    figure.update_layout(
        template="plotly_white", height=720, width=220 + 440 * len(logs), legend={"tracegroupgap": 2}, margin={"t": 40}
    )
    return figure


def save_curves(work: Path, out: Path) -> int:
    """Write the page. Returns how many trainings it shows.

    Raises:
        FileNotFoundError: the work folder holds no log.
        ValueError: one of its logs is damaged.
    """
    logs = [read_log(path) for path in sorted(Path(work).glob("*.jsonl"))]
    if not logs:
        raise FileNotFoundError(f"{work} holds no .jsonl of a training: run `prophy tiny transformer` first")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        curves_figure(logs).write_html(temporary, include_plotlyjs=True)
    return len(logs)
