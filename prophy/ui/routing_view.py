"""The routing view: a video with its routing laid over it in the browser; and the live view, its smaller sibling.

Each is one gr.HTML component: a fixed template, a script in ``static/`` and a JSON value. Nothing that a visitor typed
is ever part of a template: gradio compiles templates as JavaScript, where even escaped text could run. The scripts set
text as text.

The routing travels as bytes, for every kept denoising step: top-k ids, their weights and the phenomenon maps, so that
choosing an expert, a phenomenon, a step or an opacity asks the server nothing.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from prophy import phenomena
from prophy.grid import TEMPORAL
from prophy.heatmaps import expert_colour
from prophy.routing import RoutingTrace
from prophy.runs import Run

if TYPE_CHECKING:
    from prophy.generation import StepPreview

STATIC = Path(__file__).parent / "static"
MAX_ROUTING_BYTES = 8 * 2**20  #: of routing sent to a browser; of a larger trace, evenly spaced steps
MAX_LIVE_PICTURES = 8  #: latent frames in the live strip; of a longer video, evenly spaced ones


@dataclass(frozen=True)
class RoutingBytes:
    """A trace as the browser reads it: D kept steps, N tokens, K experts a token, P phenomena, E experts.

    Attributes:
        grid: latent frames, token rows, token columns.
        temporal: video frames in a latent frame after the first.
        steps: the number, from 1, of each step sent.
        total_steps: denoising steps the generation took.
        top_k: K.
        ids: base64 of uint8 (D, N, K), best first.
        weights: base64 of uint8 (D, N, K), 255 is 1.
        maps: base64 of uint8 (D, P, N), 255 is 1.
        semantic: the semantic experts' weights.
        experts: colours by expert.
        phenomena: name and colour by phenomenon.
    """

    grid: tuple[int, int, int]
    temporal: int
    steps: list[int]
    total_steps: int
    top_k: int
    ids: str
    weights: str
    maps: str
    semantic: list[float]
    experts: list[str]
    phenomena: list[tuple[str, str]]

    @classmethod
    def of(cls, trace: RoutingTrace) -> RoutingBytes:
        """Quantise a trace; of one too large for a browser, keep evenly spaced steps and always the last."""
        bytes_a_step = trace.topk_ids[0].size * 2 + trace.phenomenon_maps[0].size
        most = int(np.clip(MAX_ROUTING_BYTES // bytes_a_step, 1, trace.num_kept))
        kept = np.unique(np.linspace(trace.num_kept - 1, 0, most).round().astype(int))
        return cls(
            grid=trace.grid.shape,
            temporal=TEMPORAL,
            steps=[trace.step_numbers[d] for d in kept],
            total_steps=trace.steps,
            top_k=trace.topk_ids.shape[2],
            ids=_base64(trace.topk_ids[kept]),
            weights=_base64(_quantised(trace.topk_weights[kept])),
            maps=_base64(_quantised(trace.phenomenon_maps[kept]).transpose(0, 2, 1)),
            semantic=[round(float(weight), 5) for weight in trace.semantic_weights],
            experts=[expert_colour(e) for e in range(trace.num_experts)],
            phenomena=[(phenomenon.name, phenomenon.colour) for phenomenon in phenomena.PHENOMENA],
        )


@dataclass(frozen=True)
class RunView:
    """What the routing view shows.

    Attributes:
        id: of the run.
        prompt: as typed.
        facts: short texts for the line below it.
        unknown_words: words of the prompt that the model has never seen.
        video: base64 of the mp4 file.
        frames: video frames.
        fps: frames a second.
        aspect: width over height.
        routing: None for a run made without a branch.
    """

    id: str
    prompt: str
    facts: list[str]
    unknown_words: list[str]
    video: str
    frames: int
    fps: float
    aspect: float
    routing: RoutingBytes | None

    @classmethod
    def of(cls, run: Run) -> RunView:
        """Read a run's files.

        Raises:
            prophy.runs.RunError: its routing is broken.
            OSError: its video cannot be read.
        """
        record, trace = run.record, run.trace()
        settings = record.settings
        facts = [f"seed {record.seed}", f"{settings['steps']} steps", f"guidance {settings['guidance']:g}"]
        if record.timings:
            facts.append(f"made in {sum(record.timings.values()):.1f} s")
        return cls(
            id=run.id,
            prompt=record.prompt,
            facts=[*facts, record.model_id],
            unknown_words=list(record.unknown_words),
            video=base64.b64encode(run.video_path.read_bytes()).decode(),
            frames=settings["frames"],
            fps=settings["fps"],
            aspect=settings["width"] / settings["height"],
            routing=None if trace is None else RoutingBytes.of(trace),
        )

    def as_json(self) -> dict:
        """The component's value."""
        return asdict(self)


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
            detail="" if is_last else f"about {_duration(preview.seconds_left)} left",
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


def routing_view() -> gr.HTML:
    """The component. Its value is :meth:`RunView.as_json`, or None for an invitation to make one."""
    return _component("routing_view", ("routing.js", "routing_view.js"))


def live_view() -> gr.HTML:
    """The component. Its value is :meth:`LiveView.as_json`, or None to show nothing."""
    return _component("live_view", ("routing.js", "live_view.js"))


def _component(name: str, scripts: tuple[str, ...]) -> gr.HTML:
    return gr.HTML(
        value=None,
        html_template=(STATIC / f"{name}.html").read_text(encoding="utf-8"),
        js_on_load="\n".join((STATIC / script).read_text(encoding="utf-8") for script in scripts),
        apply_default_css=False,
        elem_id=name.replace("_", "-"),
    )


def _quantised(values: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(values.astype(np.float32), 0, 1)).astype(np.uint8)


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=np.uint8)).decode()


def _with_shape(array: np.ndarray) -> tuple[tuple[int, ...], str]:
    return array.shape[:3], _base64(array)


def _duration(seconds: float) -> str:
    """A length of time as a person says it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
