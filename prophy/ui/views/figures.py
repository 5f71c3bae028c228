"""Plotly figures of a trace, and the look of all: a clear background and grey ink, for a light and a dark page."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from prophy.routing.trace import RoutingTrace
from prophy.runs.look import GRID, LOOK
from prophy.runs.overlay import expert_colour


def expert_timeline(trace: RoutingTrace, step: int = -1) -> go.Figure:
    """How the experts share the tokens over the clip: stacked bars, one for each latent frame and as wide as its video
    frames.

    Args:
        trace: the routing.
        step: a kept denoising step; negative counts from the last.

    Returns:
        One trace per expert that is the strongest anywhere; x in video frames from 1, y from 0 to 1.

    Raises:
        IndexError: no such step.
    """
    shares_TE = trace.expert_shares(step)
    covered = [trace.grid.video_frames(t) for t in range(trace.grid.frames)]
    figure = go.Figure()
    for expert in np.flatnonzero(shares_TE.max(0) > 0):
        figure.add_bar(
            x=[(frames[0] + frames[-1]) / 2 + 1 for frames in covered],
            y=shares_TE[:, expert],
            width=[len(frames) - 0.06 for frames in covered],
            name=f"expert {expert}",
            marker={"color": expert_colour(expert), "line": {"width": 0}},
            customdata=[[t, _range_text(frames)] for t, frames in enumerate(covered)],
            hovertemplate=f"expert {expert}: %{{y:.0%}}<br>%{{customdata[1]}}<extra></extra>",
        )
    figure.update_layout(
        barmode="stack",
        height=190,
        margin={"l": 44, "r": 8, "t": 8, "b": 38},
        showlegend=False,
        **LOOK,
        xaxis={
            "title": {"text": "video frame", "standoff": 6},
            "range": [0.5, trace.grid.num_video_frames + 0.5],
            "tickvals": [1, *(frames[-1] + 1 for frames in covered[1:])],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        yaxis={
            "range": [0, 1],
            "tickformat": ".0%",
            "tickvals": [0, 0.5, 1],
            "gridcolor": GRID,
            "zeroline": False,
            "fixedrange": True,
        },
    )
    return figure


def _range_text(frames: range) -> str:
    first, last = frames[0] + 1, frames[-1] + 1
    return f"frame {first}" if first == last else f"frames {first}–{last}"
