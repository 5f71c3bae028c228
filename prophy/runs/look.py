"""The look of every Plotly figure: a clear ground and grey ink, so that it fits a light and a dark page."""

from __future__ import annotations

INK = "#7d8794"
GRID = "rgba(125, 135, 148, 0.18)"  #: its lines
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
CLEAR = "rgba(0,0,0,0)"

#: what every figure's layout has
LOOK = {"paper_bgcolor": CLEAR, "plot_bgcolor": CLEAR, "font": {"family": FONT, "size": 12, "color": INK}}
