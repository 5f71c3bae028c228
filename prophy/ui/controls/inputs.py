"""The numbers that every tab asks with, their ranges, and the request they make."""

from __future__ import annotations

import math
from typing import NamedTuple

import gradio as gr

from prophy.ui.engine.engine import Request
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.models import ModelCard

_SEEDS = 10**6  #: that the dice chooses from: short enough to be read out


class Numbers(NamedTuple):
    """Seed, denoising steps and guidance."""

    seed: gr.Number
    steps: gr.Number
    guidance: gr.Number


def numbers(card: ModelCard, prefix: str = "") -> Numbers:
    """A row of them.

    Args:
        card: of the model whose steps and guidance they start at.
        prefix: of their ids in the page.
    """
    with gr.Row(elem_classes="pp-seed"):
        made = Numbers(
            _number("Seed", f"{prefix}seed", Request.seed, precision=0),
            _number("Steps", f"{prefix}steps", card.made.steps, precision=0),
            _number("Guidance", f"{prefix}guidance", card.made.guidance, precision=1),
        )
        dice = gr.Button("Random seed", size="sm", min_width=72, elem_id=f"{prefix}dice", elem_classes="pp-dice")
    # In the browser alone: no request, and no two visitors get the same.
    dice.click(None, None, made.seed, js=f"() => Math.floor({_SEEDS} * Math.random())", api_visibility="private")
    return made


def _number(label: str, elem_id: str, value: float, *, precision: int) -> gr.Number:
    # Without a range: gradio would refuse a number without naming what it is. The engine names it, and its range.
    return gr.Number(label=label, value=value, precision=precision, min_width=72, elem_id=elem_id)


def request_of(
    prompt: str | None,
    seed: float | None,
    steps: float | None,
    guidance: float | None,
    model: str | None,
    profile: str | None,
) -> Request:
    """The request of what is in the controls, which may be empty.

    Raises:
        EngineError: a program sent something else than numbers.
    """
    for name, value in (("seed", seed), ("steps", steps), ("guidance", guidance)):
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise EngineError(f"{name}={value!r:.40} must be a number")
    return Request(
        prompt or "",
        seed=Request.seed if seed is None else int(seed),
        steps=None if steps is None else int(steps),
        guidance=None if guidance is None else float(guidance),
        model=model or "",
        profile=profile or "",
    )
