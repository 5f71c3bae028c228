"""The numbers that every tab asks with, their ranges, and the request they make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import gradio as gr

from prophy.catalogue.limits import FewSteps
from prophy.generation.settings import SAMPLERS
from prophy.runs.record import RunRecord
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.models import ModelCard
from prophy.ui.engine.request import Request

_SEEDS = 10**6  #: that the dice chooses from: short enough to be read out


class Numbers(NamedTuple):
    """Seed, denoising steps and guidance."""

    seed: gr.Number
    steps: gr.Number
    guidance: gr.Number


def numbers(card: ModelCard, prefix: str = "", record: RunRecord | None = None) -> Numbers:
    """A row of them.

    Args:
        card: of the model whose steps and guidance they start at.
        prefix: of their ids in the page.
        record: of a run whose numbers they start at instead.
    """
    seed, steps, guidance = Request.seed, card.made.steps, card.made.guidance
    if record is not None:
        seed, steps, guidance = record.seed, record.settings["steps"], record.settings["guidance"]
    with gr.Row(elem_classes="pp-seed"):
        made = Numbers(
            _number("Seed", f"{prefix}seed", seed, precision=0),
            _number("Steps", f"{prefix}steps", steps, precision=0),
            _number("Guidance", f"{prefix}guidance", guidance, precision=1),
        )
        dice = gr.Button("Random seed", size="sm", min_width=72, elem_id=f"{prefix}dice", elem_classes="pp-dice")
    # In the browser alone: no request, and no two visitors get the same.
    dice.click(None, None, made.seed, js=f"() => Math.floor({_SEEDS} * Math.random())", api_visibility="private")
    return made


class Size(NamedTuple):
    """Width, height and length of the clip, in pixels and frames."""

    width: gr.Number
    height: gr.Number
    frames: gr.Number

    def of_model(self, card: ModelCard) -> dict[gr.Number, dict]:
        """What shows those of a model; nothing where it makes clips of one size."""
        values = zip(self, (card.made.width, card.made.height, card.made.frames), strict=True)
        return {part: gr.update(value=value, visible=not card.is_embedded) for part, value in values}

    def of_run(self, record: RunRecord, cards: Sequence[ModelCard]) -> dict[gr.Number, int]:
        """What asks for a run's, where a model of this app that makes others made it."""
        if not any(card.name == record.model_id and not card.is_embedded for card in cards):
            return {}
        return dict(zip(self, (record.settings[name] for name in self._fields), strict=True))


def size(card: ModelCard, prefix: str = "") -> Size:
    """A row of them; nothing of it shows where a model makes clips of one size.

    Args:
        card, prefix: see :func:`numbers`.
    """
    made, shows = card.made, not card.is_embedded
    with gr.Row(elem_classes="pp-size"):
        return Size(
            _number("Width", f"{prefix}width", made.width, precision=0, visible=shows),
            _number("Height", f"{prefix}height", made.height, precision=0, visible=shows),
            _number("Frames", f"{prefix}frames", made.frames, precision=0, visible=shows),
        )


class Sampling(NamedTuple):
    """What some published models want besides."""

    negative_prompt: gr.Textbox
    guidance_2: gr.Number
    flow_shift: gr.Number
    sampler: gr.Dropdown


def sampling(card: ModelCard, steps: gr.Number, guidance: gr.Number) -> Sampling:
    """A closed part of the page with them, and a button that sets all for a distilled model.

    Args:
        card: of the model whose settings they start at.
        steps: denoising steps, which the button sets too.
        guidance: likewise.
    """
    made = card.made
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        negative = gr.Textbox(
            label="Negative prompt", value=made.negative_prompt, lines=2, max_lines=4, elem_id="negative-prompt"
        )
        with gr.Row():
            controls = Sampling(
                negative,
                gr.Number(
                    label="Guidance at low noise",
                    value=made.guidance_2,
                    min_width=72,
                    visible=card.model_config.transformers > 1,
                    elem_id="guidance-2",
                ),
                gr.Number(
                    label="Flow shift",
                    value=made.flow_shift,
                    min_width=72,
                    elem_id="flow-shift",
                ),
                gr.Dropdown(
                    ["", *SAMPLERS], value="", label="Sampler (empty: the model's)", min_width=72, elem_id="sampler"
                ),
            )
        few = gr.Button("Few steps, for distilled models", size="sm", elem_id="few-steps")
    few.click(
        _few_steps,
        None,
        [steps, guidance, *controls],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return controls


def _few_steps() -> tuple[float | str | None, ...]:
    few = FewSteps()
    return few.steps, few.guidance, few.negative_prompt, few.guidance_2, few.flow_shift, few.sampler


def _number(label: str, elem_id: str, value: float, *, precision: int, visible: bool = True) -> gr.Number:
    # Without a range: gradio would refuse a number without naming what it is. The engine names it, and its range.
    return gr.Number(label=label, value=value, precision=precision, min_width=72, elem_id=elem_id, visible=visible)


def request_of(
    prompt: str | None,
    seed: float | None,
    steps: float | None,
    guidance: float | None,
    model: str | None,
    profile: str | None,
    negative_prompt: str | None = None,
    guidance_2: float | None = None,
    flow_shift: float | None = None,
    sampler: str | None = None,
    width: float | None = None,
    height: float | None = None,
    frames: float | None = None,
) -> Request:
    """The request of what is in the controls, which may be empty.

    Raises:
        EngineError: a program sent something else than numbers.
    """
    asked = {"seed": seed, "steps": steps, "guidance": guidance, "guidance_2": guidance_2, "flow_shift": flow_shift}
    asked |= {"width": width, "height": height, "frames": frames}
    for name, value in asked.items():
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise EngineError(f"{name}={value!r:.40} must be a number")
    is_guided = guidance is None or guidance > 1
    return Request(
        prompt or "",
        seed=Request.seed if seed is None else int(seed),
        steps=_whole(steps),
        guidance=None if guidance is None else float(guidance),
        model=model or "",
        profile=profile or "",
        negative_prompt=negative_prompt if is_guided else None,  # nothing would be led away from it
        guidance_2=guidance_2 if is_guided else None,
        flow_shift=flow_shift or None,
        sampler=sampler or None,
        width=_whole(width),
        height=_whole(height),
        frames=_whole(frames),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
