"""The page: what is on it and what its controls do."""

from __future__ import annotations

import base64
import html
import logging
import os
import secrets
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

# Before gradio: it reports usage over the network unless told not to.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import cv2
import gradio as gr

from prophy import phenomena
from prophy.evaluation.prompts import FIXED_PROMPTS
from prophy.runs import Run, RunError
from prophy.ui.engine import Engine, EngineError, Finished, ModelCard, Opening, Request, Started, Waiting
from prophy.ui.figures import expert_timeline
from prophy.ui.routing_view import STATIC, LiveView, RunView, live_view, routing_view

logger = logging.getLogger(__name__)

EXAMPLES = tuple(FIXED_PROMPTS[i] for i in (2, 4, 6, 10, 12, 14, 16, 18, 20))
_MAX_STEPS = 50
_POSTER_SIDE = 192  # of a card, in pixels
_OWN_RUNS_KEPT = 24
_LARGEST_SEED = 2**31 - 1

_COLOURS = gr.themes.Color(
    name="prophy",
    c50="#eef6fb",
    c100="#d6eaf6",
    c200="#aed5ec",
    c300="#7dbbdf",
    c400="#409bce",
    c500="#0f7fbd",
    c600="#0072b2",
    c700="#005d92",
    c800="#054d78",
    c900="#0a3f61",
    c950="#072940",
)


def build_demo(engine: Engine) -> gr.Blocks:
    """The page over an engine. Serve it with :func:`launch`, which carries its theme and style."""
    card = engine.card()
    withdrawn: set[str] = set()  # tickets of requests that were stopped before their turn came
    with gr.Blocks(title="ProPhy", analytics_enabled=False, fill_width=False) as demo:
        asked = gr.State()  # a ticket and its Request, once that was found good
        own_runs = gr.BrowserState([], storage_key="prophy-runs", secret="prophy")
        gr.HTML(_HEADER, apply_default_css=False)
        with gr.Row(elem_classes="pp-columns", equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_classes="pp-ask"):
                prompt = gr.Textbox(
                    label="What should happen?",
                    placeholder="a red ball bounces on the floor",
                    lines=2,
                    max_lines=5,
                    elem_id="prompt",
                )
                examples = _scripted(
                    "examples",
                    '<div class="pp-chips" role="group" aria-label="Example prompts"></div>',
                    value=[_example_chip(i) for i in range(len(EXAMPLES))],
                )
                with gr.Row(elem_classes="pp-seed"):
                    seed = gr.Number(
                        label="Seed",
                        value=0,
                        precision=0,
                        minimum=0,
                        maximum=_LARGEST_SEED,
                        min_width=90,
                        elem_id="seed",
                    )
                    steps = gr.Number(
                        label="Denoising steps",
                        value=20,
                        precision=0,
                        minimum=1,
                        maximum=_MAX_STEPS,
                        min_width=90,
                        elem_id="steps",
                    )
                with gr.Row(elem_classes="pp-actions"):
                    generate = gr.Button("Generate", variant="primary", elem_id="generate", min_width=120)
                    stop = gr.Button("Stop", variant="secondary", interactive=False, elem_id="stop", min_width=80)
                notice = gr.HTML(elem_id="notice", apply_default_css=False)
                gr.HTML(_about_model(card), apply_default_css=False, elem_id="about-model")
            with gr.Column(scale=9, min_width=320, elem_classes="pp-result"):
                live = live_view()
                view = routing_view()
                with gr.Column(visible=False, elem_id="timeline") as timeline_part:
                    gr.HTML(_TIMELINE_HEADING, apply_default_css=False)
                    timeline = gr.Plot(show_label=False, container=False)
        with gr.Column(visible=False, elem_classes="pp-shelf") as gallery_part:
            gr.HTML(_shelf("Gallery", "shipped with the code; opens without the model"), apply_default_css=False)
            gallery = _run_list("gallery")
        with gr.Column(visible=False, elem_classes="pp-shelf") as history_part:
            gr.HTML(_shelf("Your runs", f"kept in {engine.runs_dir.name}/"), apply_default_css=False)
            history = _run_list("history")

        shown = [view, timeline_part, timeline, notice]
        controls = [generate, stop]

        def open_run(run: Run) -> dict[gr.Component, Any]:
            try:
                value, trace = RunView.of(run), run.trace()
            except (RunError, OSError) as error:
                logger.warning("cannot open a run: %s", error)
                return {live: None, notice: _error(f"this run cannot be opened: {error}")}
            return {
                view: value.as_json(),
                live: None,
                timeline_part: gr.update(visible=trace is not None),
                timeline: None if trace is None else expert_timeline(trace),
            }

        def on_load(own: list[str]) -> dict[gr.Component, Any]:
            shipped, mine = engine.gallery(), engine.history(_ids(own))
            first = (shipped or mine)[:1]
            return {
                **_shelf_update(gallery_part, gallery, shipped),
                **_shelf_update(history_part, history, mine),
                # The live view is left alone: on a slow machine a generation may have begun meanwhile.
                **{part: new for part, new in (open_run(first[0]) if first else {}).items() if part is not live},
            }

        def on_choose(event: gr.EventData, visit: gr.Request) -> dict[gr.Component, Any]:
            if engine.is_generating(visit.session_hash or ""):
                return {notice: _error("a clip is being made: wait for it or press Stop, then open another")}
            try:
                run = engine.find(str(event._data.get("id")))
            except EngineError as error:
                return {notice: _error(str(error))}
            return {notice: "", **open_run(run)}

        def on_example(event: gr.EventData) -> tuple[str, int]:
            example = EXAMPLES[int(event._data["index"]) % len(EXAMPLES)]
            return example.prompt, example.seed

        def on_ask(text: str, seed_value: float | None, step_count: float | None) -> dict[gr.Component, Any]:
            request = Request(text or "", seed=int(seed_value or 0), steps=int(step_count or 20))
            try:
                engine.check(request)
            except EngineError as error:
                return {asked: None, notice: _error(str(error))}
            return {
                asked: (secrets.token_hex(8), request),
                notice: "",
                live: _waiting(request.prompt, engine.ahead).as_json(),
                generate: gr.update(interactive=False),
                stop: gr.update(interactive=True),
            }

        def on_generate(
            ticket_and_request: tuple[str, Request] | None, own: list[str], visit: gr.Request
        ) -> Iterator[dict[gr.Component, Any]]:
            from prophy.generation import GenerationStopped, StepPreview

            ticket, request = ticket_and_request or (None, None)
            if request is None or ticket in withdrawn:
                withdrawn.discard(ticket)
                yield {notice: gr.skip()}  # gradio blanks every output of a generator that ends without a word
                return
            preview = None
            title = request.prompt
            try:
                for event in engine.generate(request, visit.session_hash or ""):
                    if isinstance(event, Waiting):
                        yield {live: _waiting(title, event.ahead).as_json()}
                    elif isinstance(event, Opening):
                        yield {live: LiveView(title, "Opening the model", "only the first time").as_json()}
                    elif isinstance(event, Started):
                        started = LiveView(title, f"Step 0 of {event.steps}", total=event.steps)
                        yield {live: started.as_json(), notice: _unknown_note(event.unknown_words)}
                    elif isinstance(event, StepPreview):
                        preview = event
                        yield {live: LiveView.of(title, event).as_json()}
                    elif isinstance(event, Finished):
                        ids = [event.run.id, *_ids(own)][:_OWN_RUNS_KEPT]
                        mine = _shelf_update(history_part, history, engine.history(ids))
                        yield {**open_run(event.run), **mine, **_ready(), own_runs: ids, notice: ""}
            except GenerationStopped:
                yield {live: LiveView.of_stopped(title, preview).as_json(), **_ready()}
            except EngineError as error:
                yield {live: None, notice: _error(str(error)), **_ready()}

        def on_stop(ticket_and_request: tuple[str, Request] | None, visit: gr.Request) -> dict[gr.Component, Any]:
            if engine.stop(visit.session_hash or ""):
                return {live: gr.skip()}  # on_generate, which owns the live view, says so
            if ticket_and_request is not None:
                withdrawn.add(ticket_and_request[0])
            return {live: None, **_ready()}

        def _ready() -> dict[gr.Component, Any]:
            return {generate: gr.update(interactive=True), stop: gr.update(interactive=False)}

        def on_close(visit: gr.Request) -> None:
            engine.stop(visit.session_hash or "")

        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        everything = [live, *shown, *controls, own_runs, history_part, history]
        demo.load(on_load, own_runs, [*everything, gallery_part, gallery], **quiet)
        demo.unload(on_close)
        examples.choose(on_example, None, [prompt, seed], queue=False, **quiet)
        for runs in (gallery, history):
            runs.choose(on_choose, None, [live, *shown], queue=False, **quiet)
        asking = gr.on(
            [generate.click, prompt.submit],
            on_ask,
            [prompt, seed, steps],
            [asked, live, notice, *controls],
            queue=False,
            **quiet,
        )
        asking.then(
            on_generate,
            [asked, own_runs],
            everything,
            concurrency_id="gpu",
            concurrency_limit=None,  # the engine keeps its own line, and says how long it is
            trigger_mode="multiple",
            **quiet,
        )
        # Not gradio's `cancels`: it ends the event from outside and may blank whatever the event was to fill.
        stop.click(on_stop, asked, [live, *controls], queue=False, **quiet)
    return demo


def launch(demo: gr.Blocks, *, host: str = "127.0.0.1", port: int | None = None, open_browser: bool = False) -> str:
    """Serve the page from threads of this process, asking nothing of any other machine.

    Args:
        demo: from :func:`build_demo`.
        host: address to listen on.
        port: None for the first free one from 7860.
        open_browser: open a tab.

    Returns:
        The address of the page.

    Raises:
        OSError: the port is taken.
    """
    _, address, _ = demo.queue(default_concurrency_limit=4).launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        prevent_thread_lock=True,
        share=False,
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        theme=_theme(),
        css_paths=[STATIC / "app.css"],
        show_error=True,
        quiet=True,
    )
    return address


def _theme() -> gr.themes.Base:
    """A stock theme with the system's fonts: nothing to fetch."""
    return gr.themes.Default(
        primary_hue=_COLOURS,
        secondary_hue=_COLOURS,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"),
        font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"),
    )


# --- parts -----------------------------------------------------------------------------------------------------------

_HEADER = """
<header class="pp-title">
  <h1>ProPhy</h1>
  <p>Type a physical event. Watch which expert acts where.</p>
</header>
"""
_TIMELINE_HEADING = """
<h3 class="pp-heading">Experts over time <span>share of each latent frame's tokens whose strongest expert it is, at the
last denoising step</span></h3>
"""


def _scripted(name: str, template: str, value: Any = None, elem_id: str | None = None) -> gr.HTML:
    script = (STATIC / f"{name}.js").read_text(encoding="utf-8")
    return gr.HTML(
        value=value, html_template=template, js_on_load=script, apply_default_css=False, elem_id=elem_id or name
    )


def _run_list(elem_id: str) -> gr.HTML:
    return _scripted("run_list", '<div class="pp-runs"></div>', value=[], elem_id=elem_id)


def _shelf(name: str, note: str) -> str:
    return f'<h3 class="pp-heading">{html.escape(name)} <span>{html.escape(note)}</span></h3>'


def _shelf_update(part: gr.Column, cards: gr.HTML, runs: list[Run]) -> dict[gr.Component, Any]:
    return {part: gr.update(visible=bool(runs)), cards: [_card(run) for run in runs]}


def _card(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "prompt": run.record.prompt,
        "seed": run.record.seed,
        "poster": _poster(run.poster_path, run.files["poster.png"].bytes),
    }


@lru_cache(maxsize=256)
def _poster(path: Path, size: int) -> str:
    """A small copy of a poster as a data address; empty if it cannot be read."""
    picture = cv2.imread(str(path))
    if picture is None:
        return ""
    scale = _POSTER_SIDE / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(cv2.imencode(".jpg", small)[1].tobytes()).decode()


def _example_chip(index: int) -> dict[str, Any]:
    example = EXAMPLES[index]
    known = [phenomena.by_id(phenomenon) for phenomenon in example.phenomena]
    return {
        "prompt": example.prompt,
        "label": " + ".join(phenomenon.name for phenomenon in known),
        "colours": [phenomenon.colour for phenomenon in known],
    }


def _about_model(card: ModelCard) -> str:
    name = html.escape(card.name)
    if card.is_embedded:
        trained = (
            f"<strong>{name}</strong> was trained from scratch on small synthetic 2-D worlds only: 17 frames of 64×64 "
            "pixels, 8 a second. It is a test bed, not a rival of any video model."
        )
    else:
        trained = f"Using <strong>{name}</strong>. What it was trained on is for its authors to say."
    parts = [f"<p>{trained}</p>"]
    if not card.has_branch:
        parts.append("<p>It has no physical branch here, so its clips come without routing.</p>")
    if card.words:
        words = " ".join(html.escape(word) for word in card.words)
        parts.append(
            f"<details><summary>It knows {len(card.words)} words and nothing else</summary><p>{words}</p></details>"
        )
    return f'<aside class="pp-about">{"".join(parts)}</aside>'


def _waiting(prompt: str, ahead: int) -> LiveView:
    if ahead:
        others = "another clip is" if ahead == 1 else f"{ahead} other clips are"
        return LiveView(prompt, "Waiting", f"{others} being made first")
    return LiveView(prompt, "Starting")


def _error(message: str) -> str:
    text = html.escape(message[:1].upper() + message[1:])
    return f'<p class="pp-notice is-error" role="alert">{text}.</p>'


def _unknown_note(words: tuple[str, ...]) -> str:
    if not words:
        return ""
    listed = html.escape(", ".join(words))
    return f'<p class="pp-notice" role="status">The model has never seen: {listed}. It works from the other words.</p>'


def _ids(own: object) -> list[str]:
    """Run ids from a browser's storage, which may hold anything."""
    return [run_id for run_id in own if isinstance(run_id, str)][:_OWN_RUNS_KEPT] if isinstance(own, list) else []
