"""Plotly figures of a training's log. Every point that is drawn was logged: nothing is averaged or smoothed.

A curve has at most :data:`MOST_POINTS` points. Of a longer one, each of equal stretches keeps its lowest and highest
value, so no spike is lost, and the first and the last point stay. The experts' shares, which belong together, are drawn
at evenly spaced lines, at most :data:`MOST_COLUMNS`, the first and the last among them.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from prophy.files import write_text
from prophy.runs.look import FONT, GRID, INK, LOOK
from prophy.runs.overlay import EXPERT_COLOURS, expert_colour
from prophy.training.log import Experts, Line, TrainLine

MOST_POINTS = 1000  #: of a curve
MOST_COLUMNS = 400  #: of a map of experts over steps

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933", "#aa4499", "#44aa99")
_NOISE_COLOURS = ("#56b4e9", "#009e73", "#e69f00", "#d55e00")  #: from little noise to much
_FULL = 4  #: times the even share, at which a semantic expert's colour is full


class Chart(NamedTuple):
    """One figure with its heading.

    Attributes:
        id: in the page.
        heading: above it.
        note: beside the heading.
        draw: from the log's lines; None where the log has nothing for it.
    """

    id: str
    heading: str
    note: str
    draw: Callable[[Sequence[Line]], go.Figure | None]


def losses(lines: Sequence[Line]) -> go.Figure | None:
    """The training loss and its terms. A term that is zero throughout is not trained, and left out."""
    made = _made(lines)
    return _by_name(_steps(made), [line["losses"] for line in made], first="total")


def gradient_norms(lines: Sequence[Line]) -> go.Figure | None:
    """Before clipping: of everything, and of each part."""
    made = _made(lines)
    return _by_name(_steps(made), [line["gradient_norms"] for line in made], first="all")


def validation(lines: Sequence[Line]) -> go.Figure | None:
    """The diffusion loss of held-out clips at each noise level."""
    checked = [line for line in lines if line["kind"] == "validation" and "diffusion" in line]
    figure, steps, found = go.Figure(), _steps(checked), [line["diffusion"] for line in checked]
    for number, level in enumerate(_names(found)):
        colour = _NOISE_COLOURS[number % len(_NOISE_COLOURS)]
        _add(figure, steps, _column(found, level), f"noise {level}", colour, "lines+markers")
    return _if_drawn(figure, log=True)


def scores(lines: Sequence[Line]) -> go.Figure | None:
    """What a model that learns something else than diffusion is measured by on its way."""
    checked = [line for line in lines if line["kind"] == "validation" and "scores" in line]
    figure, steps, found = go.Figure(), _steps(checked), [line["scores"] for line in checked]
    for name, colour in zip(_names(found), _COLOURS * 9, strict=False):
        _add(figure, steps, _column(found, name), name.replace("_", " "), colour, "lines+markers")
    return _if_drawn(figure, log=False)


def refinement_usage(lines: Sequence[Line]) -> go.Figure | None:
    """The share of all assignments that each refinement expert had: bands that fill the height. A collapse is one band
    that takes it all."""
    steps, shares_nE = _shares(lines, "refinement_E")
    if shares_nE.shape[1] > len(EXPERT_COLOURS):
        return _rows(steps, shares_nE)
    figure = go.Figure()
    for expert in range(shares_nE.shape[1]):
        figure.add_scatter(
            x=steps,
            y=shares_nE[:, expert],
            name=f"expert {expert}",
            stackgroup="experts",
            mode="lines",
            line={"width": 0.5, "color": INK},  # one of the colours is nearly the page's own
            fillcolor=expert_colour(expert),
            hovertemplate=f"expert {expert}: %{{y:.1%}}<extra></extra>",
        )
    return _shares_laid_out(figure, steps, shares_nE, [0, 1])


def semantic_usage(lines: Sequence[Line]) -> go.Figure | None:
    """The mean weight of each semantic expert: a row each, brighter the larger. A collapse is one bright row among dark
    ones."""
    return _rows(*_shares(lines, "semantic_S"))


def entropies(lines: Sequence[Line]) -> go.Figure | None:
    """How evenly the experts are used, and how sure the router is of each token: 1 is the largest possible entropy."""
    used = _used(lines)
    if not used:
        return None
    figure, steps = go.Figure(), np.array([step for step, _ in used], np.int64)
    named = {
        "refinement": [experts["refinement_entropy"] for _, experts in used],
        "refinement, of a token": [experts["token_entropy"] for _, experts in used],
        "semantic": [experts["semantic_entropy"] for _, experts in used],
    }
    for (name, values), colour in zip(named.items(), _COLOURS, strict=False):
        _add(figure, steps, np.array(values, float), name, colour)
    figure.add_hline(y=1, line={"color": INK, "width": 1, "dash": "dash"})
    figure = _laid_out(figure, log=False)
    return figure.update_yaxes(range=[0, 1.05], tickvals=[0, 0.5, 1])


def rate(lines: Sequence[Line]) -> go.Figure | None:
    """The learning rate."""
    made = _made(lines)
    figure = go.Figure()
    if made:
        _add(figure, _steps(made), np.array([line["rate"] for line in made], float), "rate", _COLOURS[0])
    return _if_drawn(figure, log=False, legend=False)


def pace(lines: Sequence[Line]) -> go.Figure | None:
    """s/step above, the share of it that was spent waiting for data below."""
    made = _made(lines)
    if not made:
        return None
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.1)
    named = {
        "s/step": [line["seconds_per_step"] for line in made],
        "waiting": [line["waiting"] for line in made],
    }
    for row, (name, values) in enumerate(named.items(), start=1):
        _add(figure, _steps(made), np.array(values, float), name, _COLOURS[row - 1], row=row)
    figure = _laid_out(figure, log=False, legend=False)
    figure.update_yaxes(title={"text": "seconds", "standoff": 6}, **_log_axis(figure.data[0].y), row=1)
    figure.update_yaxes(title={"text": "waiting", "standoff": 6}, rangemode="tozero", tickformat=".0%", row=2)
    return figure.update_xaxes(title=None, row=1)


CHARTS: tuple[Chart, ...] = (
    Chart("losses", "Training losses", "of one batch each; total is their weighted sum", losses),
    Chart("validation", "Held-out loss", "of the averaged weights, at fixed noise levels", validation),
    Chart("scores", "Held-out scores", "of the averaged weights, if there are any", scores),
    Chart("refinement", "Refinement experts", "share of all assignments", refinement_usage),
    Chart("semantic", "Semantic experts", "mean weight", semantic_usage),
    Chart("entropies", "Entropy of their use", "over the largest possible: 0 is one expert, 1 all alike", entropies),
    Chart("gradients", "Gradient norms", "before clipping", gradient_norms),
    Chart("rate", "Learning rate", "", rate),
    Chart("pace", "Pace", "s/step, and the share of that time without data", pace),
)


_PAGE = """<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Training curves</title>
<style>body {{ font-family: {font}; max-width: 60rem; margin: 1rem auto; padding: 0 1rem }}
h3 {{ font-size: 1rem; margin: 1.5rem 0 0 }} h3 small {{ font-weight: normal; color: {ink} }}</style>
{body}
"""


def save_page(path: Path, runs: Mapping[str, Sequence[Line]]) -> None:
    """Write the charts of some runs on one page that needs no network.

    Args:
        path: of the HTML.
        runs: the lines of each run's log, by its name.
    """
    parts: list[str] = []
    scripts = True  # Plotly's own, once
    for name, lines in runs.items():
        parts.append(f"<h2>{html.escape(name)}</h2>")
        for chart in CHARTS:
            figure = chart.draw(lines)
            if figure is not None:
                parts.append(f"<h3>{chart.heading} <small>{chart.note}</small></h3>")
                parts.append(
                    figure.to_html(full_html=False, include_plotlyjs=scripts, config={"displayModeBar": False})
                )
                scripts = False
    write_text(path, _PAGE.format(font=FONT, ink=INK, body="\n".join(parts)))


def kept(values: np.ndarray) -> np.ndarray:
    """Indices of the points of a curve to draw; see above. ``values`` may hold NaN, where there is no point."""
    if len(values) <= MOST_POINTS:
        return np.arange(len(values))
    edges = np.linspace(1, len(values) - 1, (MOST_POINTS - 2) // 2 + 1).astype(int)
    chosen = {0, len(values) - 1}
    low, high = np.where(np.isnan(values), np.inf, values), np.where(np.isnan(values), -np.inf, values)
    for start, end in pairwise(edges):
        chosen |= {start + int(low[start:end].argmin()), start + int(high[start:end].argmax())}
    return np.array(sorted(chosen))


# --- from lines to columns --------------------------------------------------------------------------------------------


def _made(lines: Sequence[Line]) -> list[TrainLine]:
    return [line for line in lines if line["kind"] == "train"]


def _steps(lines: Sequence[Line]) -> np.ndarray:
    return np.array([line["step"] for line in lines], np.int64)


def _names(found: Sequence[dict[str, float]]) -> list[str]:
    """Of the numbers, in the order of their first appearance."""
    return list(dict.fromkeys(name for numbers in found for name in numbers))


def _column(found: Sequence[dict[str, float]], name: str) -> np.ndarray:
    return np.array([numbers.get(name, np.nan) for numbers in found], float)


def _used(lines: Sequence[Line]) -> list[tuple[int, Experts]]:
    """The steps that say how the experts were used, and what they say."""
    found = ((line["step"], line.get("experts")) for line in _made(lines))
    return [(step, experts) for step, experts in found if experts is not None]


def _shares(lines: Sequence[Line], field: Literal["refinement_E", "semantic_S"]) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the experts' shares at each. Lines of another number of experts than the last one's are left out."""
    found = [(step, experts[field]) for step, experts in _used(lines)]
    count = len(found[-1][1]) if found else 0
    alike = [(step, shares) for step, shares in found if len(shares) == count]
    if len(alike) > MOST_COLUMNS:
        alike = [alike[i] for i in np.linspace(0, len(alike) - 1, MOST_COLUMNS).round().astype(int)]
    steps = np.array([step for step, _ in alike], np.int64)
    return steps, np.array([shares for _, shares in alike], float).reshape(len(alike), count)


# --- drawing ----------------------------------------------------------------------------------------------------------


def _by_name(steps: np.ndarray, found: Sequence[dict[str, float]], first: str) -> go.Figure | None:
    figure, colours = go.Figure(), iter(_COLOURS * 9)
    for name in _names(found):
        values = _column(found, name)
        if np.any(values != 0):
            _add(figure, steps, values, name.replace("_", " "), INK if name == first else next(colours, INK))
    return _if_drawn(figure, log=True)


def _add(
    figure: go.Figure,
    steps: np.ndarray,
    values: np.ndarray,
    name: str,
    colour: str,
    mode: str = "lines",
    row: int | None = None,
) -> None:
    points = kept(values)
    figure.add_scatter(
        x=steps[points],
        y=values[points],
        name=name,
        mode="lines+markers" if len(points) == 1 else mode,
        line={"color": colour, "width": 1.5},
        marker={"color": colour, "size": 5},
        hovertemplate="%{fullData.name}: %{y:.4g}<extra></extra>",
        **({} if row is None else {"row": row, "col": 1}),
    )


def _rows(steps: np.ndarray, shares_nE: np.ndarray) -> go.Figure | None:
    experts = shares_nE.shape[1]
    if not experts:
        return None
    even = 1 / experts
    full = min(1.0, _FULL * even)
    figure = go.Figure()
    figure.add_heatmap(
        x=steps,
        y=np.arange(experts),
        z=shares_nE.T,
        zmin=0,
        zmax=full,
        colorscale="Cividis",
        colorbar={
            "thickness": 8,
            "outlinewidth": 0,
            "tickvals": [0, even, full],
            "ticktext": ["0", f"even, {even:.1%}", f"{full:.0%}" + ("" if full == 1 else "+")],
            "orientation": "h",
            "y": 1.0,
            "yanchor": "bottom",
            "len": 0.9,
        },
        hovertemplate="expert %{y}: %{z:.1%}<extra>step %{x}</extra>",
    )
    return _shares_laid_out(figure, steps, shares_nE, None)


def _shares_laid_out(
    figure: go.Figure, steps: np.ndarray, shares_nE: np.ndarray, whole: list[int] | None
) -> go.Figure | None:
    """With the extremes of the last line in words."""
    if not shares_nE.size:
        return None
    last = shares_nE[-1]
    most, least = int(last.argmax()), int(last.argmin())
    said = f"step {steps[-1]}: most {most} ({last[most]:.1%}), least {least} ({last[least]:.1%})"
    figure = _laid_out(figure, log=False)
    figure.update_xaxes(title={"text": said}, showgrid=False)
    if whole is None:
        return figure.update_yaxes(
            showgrid=False, title={"text": "expert", "standoff": 4}, dtick=max(1, len(last) // 8)
        )
    return figure.update_yaxes(range=whole, tickformat=".0%", tickvals=[0, 0.5, 1])


def _if_drawn(figure: go.Figure, log: bool, legend: bool = True) -> go.Figure | None:
    """See :func:`_laid_out`; None for a figure without a curve."""
    return _laid_out(figure, log, legend) if figure.data else None


def _laid_out(figure: go.Figure, log: bool, legend: bool = True) -> go.Figure:
    """The look that all have.

    Args:
        figure: changed.
        log: a logarithmic axis, unless a value is negative.
        legend: name the curves.
    """
    if log:
        figure.update_yaxes(**_log_axis(np.concatenate([curve.y for curve in figure.data])))
    figure.update_layout(
        height=270,
        margin={"l": 52, "r": 10, "t": 8, "b": 40},
        hovermode="x unified",
        hoverlabel={"bgcolor": "rgba(32, 38, 46, 0.94)", "bordercolor": "rgba(0,0,0,0)", "font": {"color": "#f2f4f7"}},
        showlegend=legend,
        legend={
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1.0,
            "x": 0,
            "font": {"size": 11},
            "traceorder": "normal",
        },
        dragmode=False,
        **LOOK,
    )
    axes = {"gridcolor": GRID, "zeroline": False, "fixedrange": True}
    figure.update_xaxes(title={"text": "step", "standoff": 6}, tickformat=",d", showgrid=False, **axes)
    figure.update_yaxes(exponentformat="none", **axes)
    return figure


def _log_axis(values: np.ndarray) -> dict[str, str | int]:
    """What makes an axis logarithmic; nothing where a value is negative. Zeros are not drawn on it."""
    drawn = values[np.isfinite(values)]
    positive = drawn[drawn > 0]
    if not positive.size or drawn.min() < 0:
        return {}
    return {"type": "log", **({"dtick": 1} if positive.max() > 30 * positive.min() else {})}
