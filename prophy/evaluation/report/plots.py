"""Plots of results, on a clear ground and in grey ink, so that they fit a light and a dark page and a phone.

Every name is escaped: Plotly reads a little HTML in its labels.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from prophy.evaluation.report.table import Cell, Table
from prophy.runs.look import CLEAR, FONT, GRID, INK

#: of series: told apart by colour-blind eyes, and visible on white and on black
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#7d8794", "#b8a800")
_LONG = 14  # characters: longer labels are read beside their bar, not beneath it


def bars(title: str, unit: str, table: Table, names: Sequence[str] = ()) -> go.Figure:
    """Grouped bars with intervals: a group for each row, a series for each column; they lie where labels are long.

    Args:
        title: of the plot.
        unit: of the values.
        table: of cells; what was not measured has no bar.
        names: of the series; default: the table's header.
    """
    rows = table.rows
    lying = max((len(row.name) for row in rows), default=0) > _LONG
    along, across = ("x", "y") if lying else ("y", "x")
    figure = go.Figure()
    series = tuple(names or table.header[1:]) if rows else ()
    for i, name in enumerate(series):
        known = {row.name: cell for row in rows if (cell := _cell(row.cells[i])).number is not None}
        figure.add_bar(
            **{across: [html.escape(label) for label in known], along: [cell.number for cell in known.values()]},
            name=html.escape(name),
            orientation="h" if lying else "v",
            marker={"color": COLOURS[i % len(COLOURS)]},
            **{f"error_{along}": _error(list(known.values()))},
        )
    if lying:
        figure.update_yaxes(autorange="reversed", ticklabelstandoff=6)
        height = 110 + 24 * bool(len(series) > 1) + len(rows) * max(22, 12 * len(series) + 8)
    else:
        height = 380
    figure.update_layout(barmode="group", bargap=0.25, **{f"{across}axis_type": "category"})
    return _styled(figure, title, height, legend=len(series) > 1, **{f"{along}_title": unit})


def lines(title: str, unit: str, axis: str, places: Sequence[float], table: Table) -> go.Figure:
    """Lines with intervals: a line for each row, whose cells were measured at ``places`` on ``axis``, in ``unit``."""
    figure = go.Figure()
    for i, row in enumerate(table.rows):
        cells = zip(places, map(_cell, row.cells), strict=True)
        known = [(at, cell) for at, cell in cells if cell.number is not None]
        figure.add_scatter(
            x=[at for at, _ in known],
            y=[cell.number for _, cell in known],
            name=html.escape(row.name),
            mode="lines+markers",
            line={"color": COLOURS[i % len(COLOURS)]},
            error_y=_error([cell for _, cell in known]),
        )
    figure.update_yaxes(rangemode="tozero")
    return _styled(figure, title, 380 + 12 * len(table.rows), legend=len(table.rows) > 1, x_title=axis, y_title=unit)


def heatmap(title: str, labels: Sequence[str], values: Sequence[Sequence[float]]) -> go.Figure:
    """A square table of correlations from -1 to 1; NaN is left empty."""
    names = [html.escape(label) for label in labels]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if math.isnan(value) else value for value in row] for row in values],
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


@dataclass(frozen=True)
class Spot:
    """One cell of a :func:`matrix`.

    Attributes:
        value: that its colour shows, 0 to 100.
        says: its text when pointed at, in Plotly's HTML.
        picture: name of the PNG that a click shows; None without one.
    """

    value: float
    says: str
    picture: str | None = None


def matrix(
    title: str, rows: Sequence[str], columns: Sequence[str], spots: Sequence[Sequence[Spot | None]], most: float = 100
) -> go.Figure:
    """A table of shares as colours, from white, or the page's ground, at 0; below 0 orange. None is left empty.

    A click on a cell shows its picture, where it has one: the page's script reads the name from ``customdata``.
    """
    table = [list(row) for row in spots]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if spot is None else spot.value for spot in row] for row in table],
            x=[html.escape(name) for name in columns],
            y=[html.escape(name) for name in rows],
            text=[["" if spot is None else spot.says for spot in row] for row in table],
            customdata=[["" if spot is None else spot.picture or "" for spot in row] for row in table],
            zmin=-most,
            zmax=most,
            colorscale=[[0, COLOURS[3]], [0.5, "rgba(127,127,127,0.08)"], [1, COLOURS[0]]],
            xgap=1,
            ygap=1,
            hoverongaps=False,
            colorbar={"thickness": 10, "outlinewidth": 0, "tickvals": [-most, 0, most]},
            hovertemplate="%{y} → %{x}<br>%{text}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    return _styled(figure, title, 180 + 24 * len(table), legend=False)


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


def _cell(cell: str | Cell) -> Cell:
    if isinstance(cell, str):
        raise TypeError(f"{cell!r} is no number to plot")
    return cell


def _error(cells: Sequence[Cell]) -> dict[str, object]:
    """Plotly's error bars; none around a number without an interval."""
    spreads = [cell.spread or (0.0, 0.0) for cell in cells]
    return {
        "array": [above for _, above in spreads],
        "arrayminus": [below for below, _ in spreads],
        "visible": any(cell.spread for cell in cells),
        "color": INK,
        "thickness": 1.5,
        "width": 3,
    }
