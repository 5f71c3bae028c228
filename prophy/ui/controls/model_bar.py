"""Which model makes the clips, in which memory profile, and what a clip will need, before it is made."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.events import Dependency

from prophy.memory.profiles import AUTO, PROFILES
from prophy.ui.controls import messages
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.estimates import Estimate
from prophy.ui.engine.models import ModelCard
from prophy.ui.engine.request import Request
from prophy.ui.views.live import duration

_GIB = 2**30


class ModelBar:
    """The row above the tabs, built where this is called. With the embedded model alone, nothing of it shows.

    Attributes:
        model: the picker; its value is the name of a card.
        profile: the memory profile; its value is a name.

    Args:
        engine: of the app.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.shows = not all(card.is_embedded for card in engine.cards)
        names = [card.name for card in engine.cards]
        with gr.Column(visible=self.shows, elem_id="models", elem_classes="pp-models"):
            with gr.Row():
                self.model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1, elem_id="model")
                self.profile = gr.Dropdown(
                    [AUTO, *map(str, PROFILES)], value=engine.profile, label="Memory profile", elem_id="profile"
                )
            self._estimate = gr.HTML(elem_id="estimate", apply_default_css=False)

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What a request takes from here."""
        return [self.model, self.profile]

    def wire(
        self, asks: Sequence[Any], after: Sequence[Dependency], numbers: Sequence[gr.components.Component]
    ) -> None:
        """Keep the estimate up to date; seconds of work when a model is first chosen, and none where nothing shows.

        Args:
            asks: event listeners after which the estimate may be another.
            after: events that it follows, such as a newly picked model.
            numbers: denoising steps and guidance.
        """
        if not self.shows:
            return
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        given = self._on_change, [*self.inputs, *numbers], self._estimate
        gr.on([*asks, self.profile.change], *given, trigger_mode="always_last", **quiet)
        for event in after:
            event.then(*given, **quiet)

    def _on_change(self, model: str, profile: str, steps: float | None, guidance: float | None) -> str:
        steps = None if steps is None else int(steps)
        try:
            estimate = self._engine.estimate(Request("", steps=steps, guidance=guidance, model=model, profile=profile))
            return estimate_line(self._engine.card(model), estimate)
        except EngineError as error:
            return messages.error(error)


def estimate_line(card: ModelCard, estimate: Estimate) -> str:
    """An estimate as HTML, in one line."""
    made = card.made
    said = [f"{made.width}×{made.height}, {made.frames} frames at {made.fps:g} a second"]
    peak = f"{estimate.peak / _GIB:.1f}"
    if estimate.profile is None:
        return messages.error(f"{said[0]}: {estimate.problem}")
    if estimate.free is None:
        said.append(f"{peak} GiB of memory at the peak, during {estimate.stage}")
    else:
        too_much = ", more than is free" if estimate.peak > estimate.free else ""
        said.append(
            f"profile {estimate.profile}: {peak} of {estimate.free / _GIB:.1f} GiB at the peak, during "
            f"{estimate.stage}{too_much}"
        )
    if estimate.slow_down is not None and estimate.slow_down >= 1.005:
        said.append(f"{estimate.slow_down:.2f}× the time of a card that holds everything")
    said.append("not timed here yet" if estimate.seconds is None else f"about {duration(estimate.seconds)}")
    return f'<p class="pp-estimate" role="status">{html.escape(" · ".join(said))}</p>'
