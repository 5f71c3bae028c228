"""Plots of results, on a clear ground and in grey ink, so that they fit a light and a dark page and a phone.

Every name is escaped: Plotly reads a little HTML in its labels.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

INK = "#7d8794"
GRID = "rgba(125, 135, 148, 0.18)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
CLEAR = "rgba(0,0,0,0)"
#: of series: told apart by colour-blind eyes, and visible on white and on black
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#7d8794", "#b8a800")
_LONG = 14  # characters: longer labels are read beside their bar, not beneath it

Measured = Mapping[str, float] | float | None


def bars(title: str, unit: str, rows: Mapping[str, Mapping[str, Measured]], scale: float = 1.0) -> go.Figure:
    """Grouped bars with intervals; they lie where the labels are long.

    Args:
        title: of the plot.
        unit: of the values.
        rows: ``rows[label][series]`` is an interval, or a number without one; None was not measured.
        scale: of the values.
    """
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    lying = max(map(len, rows), default=0) > _LONG
    along, across = ("x", "y") if lying else ("y", "x")
    figure = go.Figure()
    for i, name in enumerate(series):
        known = {label: row[name] for label, row in rows.items() if _value(row.get(name)) is not None}
        figure.add_bar(
            **{across: [html.escape(label) for label in known], along: [scale * _value(v) for v in known.values()]},
            name=html.escape(name),
            orientation="h" if lying else "v",
            marker={"color": COLOURS[i % len(COLOURS)]},
            **{f"error_{along}": _error(list(known.values()), scale)},
        )
    if lying:
        figure.update_yaxes(autorange="reversed", ticklabelstandoff=6)
        height = 110 + 24 * bool(len(series) > 1) + len(rows) * max(22, 12 * len(series) + 8)
    else:
        height = 380
    figure.update_layout(barmode="group", bargap=0.25, **{f"{across}axis_type": "category"})
    return _styled(figure, title, height, legend=len(series) > 1, **{f"{along}_title": unit})


def lines(
    title: str, unit: str, axis: str, rows: Mapping[str, tuple[Sequence[float], Sequence[Measured]]]
) -> go.Figure:
    """Lines with intervals: ``rows[series]`` is the places, on ``axis``, and what was measured there, in ``unit``."""
    figure = go.Figure()
    for i, (name, (places, values)) in enumerate(rows.items()):
        known = [(at, value) for at, value in zip(places, values, strict=True) if _value(value) is not None]
        figure.add_scatter(
            x=[at for at, _ in known],
            y=[_value(value) for _, value in known],
            name=html.escape(name),
            mode="lines+markers",
            line={"color": COLOURS[i % len(COLOURS)]},
            error_y=_error([value for _, value in known]),
        )
    figure.update_yaxes(rangemode="tozero")
    return _styled(figure, title, 380 + 12 * len(rows), legend=len(rows) > 1, x_title=axis, y_title=unit)


def heatmap(title: str, labels: Sequence[str], values: Sequence[Sequence[float | None]]) -> go.Figure:
    """A square table of correlations from -1 to 1."""
    names = [html.escape(label) for label in labels]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=names,
            y=names,
            zmin=-1,
            zmax=1,
            colorscale="RdBu",
            xgap=1,
            ygap=1,
            colorbar={"thickness": 10, "outlinewidth": 0, "tickvals": [-1, 0, 1]},
            hovertemplate="%{y}, %{x}: %{z:+.2f}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    return _styled(figure, title, 440, legend=False)


def _styled(
    figure: go.Figure, title: str, height: int, *, legend: bool, x_title: str | None = None, y_title: str | None = None
) -> go.Figure:
    axis = {"gridcolor": GRID, "zerolinecolor": INK, "automargin": True, "fixedrange": True}
    figure.update_xaxes(title={"text": x_title, "standoff": 8}, **axis)
    figure.update_yaxes(title={"text": y_title, "standoff": 8}, **axis)
    figure.update_layout(
        template="none",
        title={"text": html.escape(title), "x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 8}},
        title_font_size=14,
        height=height,
        margin={"l": 8, "r": 12, "t": 40, "b": 8},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": FONT, "size": 12, "color": INK},
        showlegend=legend,
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "xanchor": "left"},
    )
    return figure


def _value(measured: Measured) -> float | None:
    return measured["value"] if isinstance(measured, Mapping) else measured


def _error(measured: Sequence[Measured], scale: float = 1.0) -> dict:
    """Plotly's error bars; none around a number without an interval."""
    ranges = [m if isinstance(m, Mapping) else {"value": m, "low": m, "high": m} for m in measured]
    return {
        "array": [scale * (m["high"] - m["value"]) for m in ranges],
        "arrayminus": [scale * (m["value"] - m["low"]) for m in ranges],
        "visible": any(isinstance(m, Mapping) for m in measured),
        "color": INK,
        "thickness": 1.5,
        "width": 3,
    }
