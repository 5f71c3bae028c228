"""What a reader makes of one result: cells as text, and the tables, plots and headlines that they stand in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import plotly.graph_objects as go

from prophy.phenomena import BY_ID


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Headline:
    """One number to see first.

    Attributes:
        label: what it is.
        value: as text.
        interval: its 95 % interval and n; empty where it has none.
        beside: what it must be read against: a control, a baseline, whether the interval holds 0.
    """

    label: str
    value: str
    interval: str
    beside: str = ""


@dataclass(frozen=True)
class Body:
    """One result as its reader shows it.

    Attributes:
        weights: SHA-256 of the weights measured, by name.
        pictures: PNG files beside the result's own.
        headline: how many of the tables, from the first, sum the others up.
    """

    title: str
    tables: tuple[Table, ...]
    plots: tuple[go.Figure, ...] = ()
    headlines: tuple[Headline, ...] = ()
    notes: tuple[str, ...] = ()
    weights: dict[str, str] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    headline: int = 1


def share(interval: dict | float | None) -> str:
    """A share in per cent, with its interval if it has one; what was not measured says so."""
    return _cell(interval, lambda x: f"{100 * x:.1f}", " %")


def number(interval: dict | float | None, digits: int = 3) -> str:
    """A number, with its interval if it has one."""
    return _cell(interval, lambda x: f"{x:.{digits}f}", "")


def signed(interval: dict | float | None, digits: int = 3) -> str:
    """A difference, with its interval if it has one."""
    return _cell(interval, lambda x: f"{x:+.{digits}f}", "", " to ")


def headline(label: str, cell: str, beside: str = "") -> Headline:
    """A headline of a cell that :func:`share`, :func:`number` or :func:`signed` made."""
    value, _, interval = cell.partition(" (")
    return Headline(label, value, interval.removesuffix(")"), beside)


def bare(cell: str) -> str:
    """A cell without its interval."""
    return cell.partition(" (")[0]


def verdict(difference: dict | None, *, lower_is_better: bool = False) -> str:
    """What a difference says: better, worse, or nothing where its interval holds 0."""
    if difference is None or difference["value"] is None:
        return ""
    if difference["low"] <= 0 <= difference["high"]:
        return "no difference shown: the interval holds 0"
    return "better" if (difference["value"] < 0) == lower_is_better else "worse"


def name_of(phenomenon: str) -> str:
    """A phenomenon's name by its id."""
    return BY_ID[phenomenon].name


def _cell(interval: dict | float | None, shown: Callable[[float], str], unit: str, dash: str = "–") -> str:
    if interval is None:
        return "–"
    if isinstance(interval, int | float):
        return f"{shown(_finite(interval))}{unit}"
    if interval["value"] is None:
        return "not measured (n=0)"
    low, high = shown(_finite(interval["low"])), shown(_finite(interval["high"]))
    return f"{shown(_finite(interval['value']))}{unit} ({low}{dash}{high}, n={int(interval['n'])})"


def _finite(value: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return value
