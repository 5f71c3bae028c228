"""The live view: what is known of a clip while it is made, step by step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from prophy.runs.overlay import expert_colour
from prophy.ui.views.component import component
from prophy.ui.views.routing import base64_of

if TYPE_CHECKING:
    from prophy.generation.generate import StepPreview

MAX_LIVE_PICTURES = 8  #: latent frames in the live strip; of a longer video, evenly spaced ones


@dataclass(frozen=True)
class LiveView:
    """What the live view shows while a video is made, and after it was stopped.

    Attributes:
        prompt: as typed.
        headline: what is happening.
        detail: more of it, in a few words.
        step: steps done.
        total: steps in all; 0 while unknown.
        is_running: False once it was stopped.
        pictures: shape (T, h, w) and base64 of uint8 RGB: the predicted clean video, one picture a latent frame.
        top1: shape (T, H, W) and base64 of uint8: the strongest expert of each token.
        experts: colours by expert, for every id there can be.
    """

    prompt: str
    headline: str
    detail: str = ""
    step: int = 0
    total: int = 0
    is_running: bool = True
    pictures: tuple[tuple[int, ...], str] | None = None
    top1: tuple[tuple[int, ...], str] | None = None
    experts: tuple[str, ...] = ()

    @classmethod
    def of(cls, prompt: str, preview: StepPreview) -> LiveView:
        """The view after one denoising step."""
        shown = np.unique(np.linspace(0, len(preview.frames) - 1, MAX_LIVE_PICTURES).round().astype(int))
        is_last = preview.step == preview.total
        experts = 0 if preview.top1 is None else int(preview.top1.max()) + 1
        return cls(
            prompt=prompt,
            headline="Decoding the video" if is_last else f"Step {preview.step} of {preview.total}",
            detail="" if is_last else f"about {duration(preview.seconds_left)} left",
            step=preview.step,
            total=preview.total,
            pictures=_with_shape(preview.frames[shown]),
            top1=None if preview.top1 is None else _with_shape(preview.top1[shown]),
            experts=tuple(expert_colour(e) for e in range(experts)),
        )

    @classmethod
    def of_stopped(cls, prompt: str, preview: StepPreview | None) -> LiveView:
        """The view of a generation that was stopped, with the last pictures it made."""
        after = "" if preview is None else f" after step {preview.step} of {preview.total}"
        live = cls(prompt, "") if preview is None else cls.of(prompt, preview)
        return replace(live, headline=f"Stopped{after}", detail="nothing was saved", is_running=False)

    def as_json(self) -> dict:
        """The component's value."""
        return asdict(self)


def live_view(elem_id: str = "live-view") -> gr.HTML:
    """The component. Its value is :meth:`LiveView.as_json`, or None to show nothing."""
    return component("live_view", ("routing.js", "live_view.js"), elem_id=elem_id)


def _with_shape(array: np.ndarray) -> tuple[tuple[int, ...], str]:
    return array.shape[:3], base64_of(array)


def duration(seconds: float) -> str:
    """A length of time as a person says it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
