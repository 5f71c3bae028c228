"""The app's named endpoints, for programs: generate, compare, inspect_token, export_overlay, list_gallery.

    from gradio_client import Client
    client = Client("http://127.0.0.1:7860")
    client.predict("a red ball bounces on the floor", api_name="/generate")

What is wrong with an argument is said in one line, and raised in the caller's program.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from prophy import phenomena
from prophy.routing.distance import pixel_difference, routing_difference
from prophy.routing.steering import Steering, SteeringError
from prophy.runs.store import Run, RunError
from prophy.ui.engine.engine import Engine, EngineError, Finished, Opening, Request, Started, Waiting
from prophy.ui.engine.files import export_run

_KEPT_SECONDS = 3600  # of a file made for a caller


def endpoints(engine: Engine) -> None:
    """Add the endpoints to the page under construction."""

    def generate(
        prompt: str,
        seed: int = 0,
        steps: int = 0,
        guidance: float = -1.0,
        use_branch: bool = True,
        steering: dict = {},  # noqa: B006  gradio reads the default for its documentation
        model: str = "",
        profile: str = "",
    ) -> Iterator[dict]:
        """Make one clip; streams what happens. The last message has the run's id and the video. Without a model the
        first is taken, without a memory profile the app's; without steps (0) and guidance (-1) the model's own."""
        request = _request(prompt, seed, steps, guidance, use_branch, steering, model, profile)
        for event in _events(engine, request):
            if isinstance(event, Run):
                yield {"event": "finished", "video": _sent(event.video_path, event.id), **_about(event)}
            else:
                yield event

    def compare(
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
        token (latent frames, rows, columns; null without routing) and the difference of their pictures by frame."""
        a = _request(prompt_a, seed, steps, guidance, True, {}, model, profile)
        b = _request(prompt_b, seed, steps, guidance, use_branch_b, steering_b, model, profile)
        runs = [next(event for event in _events(engine, request) if isinstance(event, Run)) for request in (a, b)]
        traces = [run.trace() for run in runs]
        distance = None if None in traces else routing_difference(*traces)
        pixels = pixel_difference(*(run.clip().frames for run in runs))
        return {
            "a": _about(runs[0]),
            "b": _about(runs[1]),
            "routing_difference": None if distance is None else distance.round(4).tolist(),
            "pixel_difference": pixels.round(5).tolist(),
        }

    def inspect_token(run: str, frame: int, row: int, column: int, step: int = 0) -> dict:
        """What was recorded at one token: a latent frame, a row and a column, at a denoising step (0: the last one)."""
        trace = _found(engine, run).trace()
        if trace is None:
            raise gr.Error(f"run {run} was made without a branch: it has no routing")
        numbers = trace.step_numbers
        if step != 0 and step not in numbers:
            raise gr.Error(f"step={step} was not kept: choose one of {', '.join(map(str, numbers))}, or 0 for the last")
        kept = numbers.index(step or numbers[-1])
        try:
            token = trace.grid.index(frame, row, column)
        except (IndexError, TypeError):
            shape = "×".join(map(str, trace.grid.shape))
            raise gr.Error(f"token ({frame}, {row}, {column}) lies outside the grid of {shape}") from None

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
        }

    def export_overlay(
        run: str, mode: str = "phenomena", index: int = -1, step: int = 0, opacity: float = -1.0
    ) -> dict:
        """A run's video with its routing burnt in. Modes: phenomena, top1, expert, phenomenon, entropy, margin; the
        expert or the phenomenon by its index; the denoising step by its number (0: the last one); opacity 0 to 1 (-1:
        the mode's own)."""
        try:
            path = export_run(
                _found(engine, run),
                _folder(),
                "overlay",
                mode=mode,
                index=None if index < 0 else index,
                step=step or None,
                opacity=None if opacity == -1 else opacity,
            )
        except EngineError as error:
            raise gr.Error(str(error)) from None
        return _file(path)

    def list_gallery() -> list:
        """The shipped runs: id, prompt, seed and settings of each."""
        return [_about(run) for run in engine.gallery()]

    for endpoint, limit in ((generate, None), (compare, None), (inspect_token, 4), (export_overlay, 2)):
        gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=limit)
    gr.api(list_gallery, api_name="list_gallery", queue=False)


def _request(
    prompt: str,
    seed: int,
    steps: int,
    guidance: float,
    use_branch: bool,
    steering: dict[str, Any],
    model: str,
    profile: str,
) -> Request:
    own_steps, own_guidance = None if steps == 0 else steps, None if guidance == -1 else guidance
    try:
        steered = Steering.from_json(steering)
        return Request(prompt, seed, own_steps, own_guidance, use_branch, steered, model, profile)
    except SteeringError as error:
        raise gr.Error(str(error)) from None


def _events(engine: Engine, request: Request) -> Iterator[dict | Run]:
    """What happens, as plain values, and at the end the run."""
    from prophy.generation.generate import GenerationStopped

    try:
        for event in engine.generate(request, f"api-{secrets.token_hex(8)}"):
            if isinstance(event, Waiting):
                yield {"event": "waiting", "ahead": event.ahead}
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
        raise gr.Error(str(error)) from None
    except GenerationStopped:
        raise gr.Error("the generation was stopped") from None


def _found(engine: Engine, run_id: str) -> Run:
    try:
        return engine.find(run_id)
    except (EngineError, RunError) as error:
        raise gr.Error(str(error)) from None


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


def _folder() -> Path:
    """A new folder for files that go to a caller; those of an hour ago are removed."""
    root = Path(tempfile.gettempdir()) / "prophy-sent"
    root.mkdir(exist_ok=True)
    for old in root.iterdir():
        if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=root))


def _sent(path: Path, name: str) -> dict[str, Any]:
    copy = _folder() / f"{name}{path.suffix}"
    shutil.copyfile(path, copy)
    return _file(copy)


def _file(path: Path) -> dict[str, Any]:
    """A file as gradio sends it: its client downloads it and gives the caller a local path."""
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
