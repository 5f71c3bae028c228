"""The app's named endpoints, for programs: generate, compare, inspect_token, export_overlay, list_gallery.

    from gradio_client import Client
    client = Client("http://127.0.0.1:7860")
    client.predict("a red ball bounces on the floor", api_name="/generate")

What is wrong with an argument is said in one line, and raised in the caller's program. With ``prophy app --mcp`` each
is a tool for agents besides (Model Context Protocol), described by its docstring: gradio reads one line an argument.
"""

from __future__ import annotations

import inspect
import logging
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from prophy import phenomena
from prophy.routing.attention import AttentionTrace
from prophy.routing.distance import pixel_difference, routing_difference
from prophy.routing.steering import Steering, SteeringError
from prophy.runs.record import RunError
from prophy.runs.store import Run
from prophy.ui.controls.visit import asked_by, visitor_of
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError, for_visitors
from prophy.ui.engine.events import Finished, Opening, Started
from prophy.ui.engine.exports import export_run
from prophy.ui.engine.line import Waiting
from prophy.ui.engine.request import Request

logger = logging.getLogger(__name__)
_SETTINGS = frozenset(
    {"negative_prompt", "guidance_2", "flow_shift", "sampler", "few_steps", "width", "height", "frames"}
)


def endpoints(engine: Engine) -> None:
    """Add the endpoints to the page under construction."""

    def generate(
        visit: gr.Request,
        prompt: str,
        seed: int = 0,
        steps: int = 0,
        guidance: float = -1.0,
        use_branch: bool = True,
        steering: dict = {},  # noqa: B006  gradio reads the default for its documentation
        model: str = "",
        profile: str = "",
        settings: dict = {},  # noqa: B006
        attention: bool = False,
    ) -> Iterator[dict]:
        """Make one clip of a physical event; streams what happens. The last message has the run's id and the video.

        Args:
            prompt: what should happen, in plain words; the embedded model knows few, and names those it does not know
            seed: of the noise; the same request gives the same clip
            steps: denoising steps; 0 for the model's own number
            guidance: how closely to follow the prompt, 0 to 30; -1 for the model's own
            use_branch: False leaves the backbone alone, without physical branch and routing
            steering: what to do to the experts, such as {"refinement": {"3": 0}} to mute refinement expert 3
            model: name of a model of this app; empty for the first
            profile: memory profile; empty for the app's
            settings: of negative_prompt, guidance_2, flow_shift, sampler, few_steps, width, height, frames what differs
            attention: record what the backbone attends to as well, for the page to show
        """
        request = _request(prompt, seed, steps, guidance, use_branch, steering, model, profile, settings)
        request = replace(request, attention=_truth("attention", attention))
        for event in _events(engine, request, visit):
            if isinstance(event, Run):
                yield {"event": "finished", "video": _sent(engine, event), **_about(event)}
            else:
                yield event

    def compare(
        visit: gr.Request,
        prompt_a: str,
        prompt_b: str,
        seed: int = 0,
        steps: int = 0,
        guidance: float = -1.0,
        use_branch_b: bool = True,
        steering_b: dict = {},  # noqa: B006
        model: str = "",
        profile: str = "",
    ) -> dict:
        """Make two clips from the same noise. Returns both runs, the Jensen-Shannon distance of their experts at every
        token (latent frames, rows, columns; null without routing) and the difference of their pictures by frame.

        Args:
            prompt_a: what should happen in the first clip
            prompt_b: what should happen in the second; the same prompt to compare branch or steering alone
            seed: of the noise of both
            steps: denoising steps; 0 for the model's own number
            guidance: how closely to follow the prompts, 0 to 30; -1 for the model's own
            use_branch_b: False makes the second without the physical branch
            steering_b: what to do to the experts in the second, such as {"refinement": {"3": 0}}
            model: name of a model of this app; empty for the first
            profile: memory profile; empty for the app's
        """
        a = _request(prompt_a, seed, steps, guidance, True, {}, model, profile)
        b = _request(prompt_b, seed, steps, guidance, use_branch_b, steering_b, model, profile)
        first, second = (_made(engine, request, visit) for request in (a, b))
        ours, theirs = first.trace(), second.trace()
        distance = None if ours is None or theirs is None else routing_difference(ours, theirs)
        pixels = pixel_difference(first.clip().frames, second.clip().frames)
        return {
            "a": _about(first),
            "b": _about(second),
            "routing_difference": None if distance is None else distance.round(4).tolist(),
            "pixel_difference": pixels.round(5).tolist(),
        }

    def inspect_token(visit: gr.Request, run: str, frame: int, row: int, column: int, step: int = 0) -> dict:
        """What the experts did at one token of a clip, over time and over denoising. Where it was recorded, how much
        the token attends to each word of the prompt, at the last step.

        Args:
            run: id of a run, from generate, compare or list_gallery
            frame: latent frame, from 0; each but the first covers four video frames
            row: of the token grid, from 0 at the top
            column: of the token grid, from 0 at the left
            step: number of a denoising step that was kept; 0 for the last
        """
        with engine.inspections.taken(visitor_of(visit).name):
            found = _found(engine, run)
            trace, attention = found.trace(), found.attention()
        if trace is None:
            raise _refusal(f"run {run} was made without a branch: it has no routing")
        numbers = trace.step_numbers
        if step != 0 and step not in numbers:
            raise _refusal(f"step={step} was not kept: choose one of {', '.join(map(str, numbers))}, or 0 for the last")
        kept = numbers.index(step or numbers[-1])
        try:
            token = trace.grid.index(frame, row, column)
        except (IndexError, TypeError):
            shape = "×".join(map(str, trace.grid.shape))
            raise _refusal(f"token ({frame}, {row}, {column}) lies outside the grid of {shape}") from None

        def chosen(d: int, n: int) -> dict[str, float]:
            return {str(int(e)): float(w) for e, w in zip(trace.topk_ids[d, n], trace.topk_weights[d, n], strict=True)}

        return {
            "token": token,
            "step": numbers[kept],
            "experts": chosen(kept, token),
            "mean_probabilities": [float(p) for p in trace.mean_probs[token]],
            "phenomena": {
                phenomenon.id: float(value)
                for phenomenon, value in zip(phenomena.PHENOMENA, trace.phenomenon_maps[kept, token], strict=True)
            },
            "over_time": [chosen(kept, trace.grid.index(t, row, column)) for t in range(trace.grid.frames)],
            "over_steps": [chosen(d, token) for d in range(trace.num_kept)],
            "words": None if attention is None else _attended_words(attention, token),
        }

    def export_overlay(
        visit: gr.Request, run: str, mode: str = "phenomena", index: int = -1, step: int = 0, opacity: float = -1.0
    ) -> dict:
        """A run's video with its routing, or how much each token attends to a word of the prompt, burnt in.

        Args:
            run: id of a run, from generate, compare or list_gallery
            mode: phenomena, top1, expert, phenomenon, entropy, margin, or words where attention was recorded
            index: which expert, phenomenon or word, from 0, for these three modes; else -1
            step: number of a denoising step that was kept; 0 for the last
            opacity: of what is laid over it, 0 to 1; -1 for the mode's own
        """
        with engine.exports.taken(visitor_of(visit).name):
            path = engine.aside.do(
                export_run,
                _found(engine, run).path,
                engine.scratch.new_folder(),
                "overlay",
                mode=mode,
                index=None if index < 0 else index,
                step=step or None,
                opacity=None if opacity == -1 else opacity,
            )
        return _file(path)

    def list_gallery() -> list:
        """The shipped runs: id, prompt, seed and settings of each."""
        return [_about(run) for run in engine.runs.gallery()]

    # Gradio's own limits would let one visitor's calls wait before everybody else's, untold: the engine refuses.
    for endpoint in (generate, compare, inspect_token, export_overlay):
        gr.api(_guarded(endpoint), api_name=endpoint.__name__, concurrency_limit=None)
    gr.api(_guarded(list_gallery), api_name="list_gallery", queue=False)


def _attended_words(attention: AttentionTrace, token: int) -> list[list[str | float]]:
    return [[word, round(float(attention.word_map(w).flat[token]), 5)] for w, word in enumerate(attention.words)]


def _request(
    prompt: str,
    seed: int,
    steps: int,
    guidance: float,
    use_branch: bool,
    steering: dict[str, Any],
    model: str,
    profile: str,
    settings: dict[str, Any] | None = None,
) -> Request:
    if not isinstance(settings or {}, dict):
        raise _refusal("settings must be an object, such as {'flow_shift': 5}")
    if unknown := sorted((settings or {}).keys() - _SETTINGS):
        raise _refusal(f"there is no setting {unknown[0]!r}: use {', '.join(sorted(_SETTINGS))}")
    own_steps, own_guidance = None if steps == 0 else steps, None if guidance == -1 else guidance
    _truth("use_branch", use_branch)
    try:
        steered = Steering.from_json(steering)
        return Request(prompt, seed, own_steps, own_guidance, use_branch, steered, model, profile, **(settings or {}))
    except SteeringError as error:
        raise _refusal(error) from None


def _truth(name: str, value: object) -> bool:
    """A program may send "false", which Python takes for true."""
    if not isinstance(value, bool):
        raise _refusal(f"{name} must be true or false")
    return value


def _made(engine: Engine, request: Request, visit: gr.Request) -> Run:
    return next(event for event in _events(engine, request, visit) if isinstance(event, Run))


def _refusal(message: str | BaseException) -> gr.Error:
    """What a caller is told, without a traceback in the log: refusing is no failure."""
    return gr.Error(for_visitors(message), print_exception=False)


def _guarded(endpoint: Callable) -> Callable:
    """An endpoint whose every failure is one line: what nobody foresaw is logged, and the caller told no more."""
    if inspect.isgeneratorfunction(endpoint):

        @wraps(endpoint)
        def streamed(*asked: Any, **named: Any) -> Iterator[dict]:
            with _one_line(endpoint.__name__):
                yield from endpoint(*asked, **named)

        return streamed

    @wraps(endpoint)
    def answered(*asked: Any, **named: Any) -> Any:
        with _one_line(endpoint.__name__):
            return endpoint(*asked, **named)

    return answered


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except (EngineError, RunError, OSError) as error:
        raise _refusal(error) from None
    except Exception:
        logger.exception("the endpoint %s failed", name)
        raise _refusal(f"{name} failed: look at its arguments' types, then ask whoever runs this app") from None


def _events(engine: Engine, request: Request, visit: gr.Request) -> Iterator[dict | Run]:
    """What happens, as plain values, and at the end the run."""
    from prophy.generation.generate import GenerationStopped

    try:
        for event in engine.generate(request, f"api-{secrets.token_hex(8)}", **asked_by(engine, visit)):
            if isinstance(event, Waiting):
                seconds = None if event.seconds is None else round(event.seconds, 1)
                yield {"event": "waiting", "ahead": event.ahead, "seconds": seconds}
            elif isinstance(event, Opening):
                yield {"event": "opening"}
            elif isinstance(event, Started):
                yield {"event": "started", "steps": event.steps, "unknown_words": list(event.unknown_words)}
            elif isinstance(event, Finished):
                yield event.run
            else:
                left = round(event.seconds_left, 2)
                yield {"event": "step", "step": event.step, "steps": event.total, "seconds_left": left}
    except EngineError as error:
        raise _refusal(error) from None
    except GenerationStopped:
        raise _refusal("the generation was stopped") from None


def _found(engine: Engine, run_id: str) -> Run:
    try:
        return engine.runs.find(run_id)
    except (EngineError, RunError) as error:
        raise _refusal(error) from None


def _about(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        "run": run.id,
        "prompt": record.prompt,
        "seed": record.seed,
        "settings": dict(record.settings),
        "steering": record.steering.to_json(),
        "has_routing": run.routing_path is not None,
    }


def _sent(engine: Engine, run: Run) -> dict[str, Any]:
    """A copy of a run's video: gradio sends files of the temporary folder only."""
    return _file(Path(shutil.copyfile(run.video_path, engine.scratch.new_folder() / f"{run.id}.mp4")))


def _file(path: Path) -> dict[str, Any]:
    """A file as gradio sends it: its client downloads it and gives the caller a local path."""
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
