"""The steering panel: one row of knobs for each expert, and cells to paint where one is forced.

Its event ``steer`` carries ``{"steering": document}``, which :meth:`prophy.routing.steering.Steering.from_json` reads.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import gradio as gr

from prophy.routing.steering import Steering
from prophy.runs.overlay import expert_colour
from prophy.ui.views.component import component


@dataclass(frozen=True)
class SteerView:
    """What the panel shows.

    Attributes:
        experts: colours of the refinement experts.
        semantic: how many semantic experts.
        grid: latent frames, token rows, token columns of the clip to steer.
        poster: data address of a picture to paint on; empty for none.
        steering: JSON of what to begin with.
    """

    experts: list[str]
    semantic: int
    grid: tuple[int, int, int]
    poster: str = ""
    steering: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        semantic: int,
        refinement: int,
        grid: tuple[int, int, int],
        poster: str = "",
        steering: Steering | None = None,
    ) -> SteerView:
        """The panel of a model with so many experts."""
        document = {} if steering is None else steering.to_json()
        return cls([expert_colour(e) for e in range(refinement)], semantic, grid, poster, document)

    def as_json(self) -> dict:
        """The component's value."""
        return asdict(self)


def steer_panel(value: SteerView | None) -> gr.HTML:
    """The component. Its value is :meth:`SteerView.as_json`, or None for nothing to steer."""
    return component(
        "steer_panel", ("parts.js", "steering.js", "steer_panel.js"), None if value is None else value.as_json()
    )
