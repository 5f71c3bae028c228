"""The page: its tabs, its endpoints, and how it is served."""

from __future__ import annotations

import os

# Before gradio: it reports usage over the network unless told not to.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# It also tabulates the last 10,000 calls whenever one fails, for a dashboard that is not served.
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.routes import file_upload_statuses
from gradio_client.utils import is_file_obj_with_meta, is_http_url_like, traverse
from starlette.middleware import Middleware

from prophy.evaluation.report.html import STYLE as EVIDENCE_STYLE
from prophy.training.run_folder import Trainings
from prophy.ui.api import endpoints
from prophy.ui.controls import messages
from prophy.ui.controls.model_bar import ModelBar
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.visitors import told
from prophy.ui.gate import UPLOADS_KEPT_SECONDS, Gate
from prophy.ui.tabs.about import about_tab
from prophy.ui.tabs.annotate import AnnotateTab
from prophy.ui.tabs.compare import CompareTab
from prophy.ui.tabs.evidence import evidence_tab
from prophy.ui.tabs.generate import GenerateTab
from prophy.ui.tabs.training import NAME, TrainingTab
from prophy.ui.views.component import STATIC

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
_HEADER = """
<header class="pp-title">
  <h1>ProPhy</h1>
  <p>Type a physical event. Watch which expert acts where.</p>
</header>
"""
_THREADS = 48  # more than engine.exports and engine.inspections hold together
_LARGEST_CLIP = 2**26  # bytes, of a visitor's own clip in the Annotate view
_MAIL_SECONDS = 60.0  # how long answers wait for a session to which nobody listens
_MOST_SESSIONS = 500  # whose values gradio keeps, up to two MiB each; the one not used for longest is forgotten first
_CACHE_SECONDS = (600, UPLOADS_KEPT_SECONDS)  # how often gradio's cache is swept, and how old a file may grow


class Page(gr.Blocks):
    """The page, and what serving it needs to know.

    Args:
        engine: of the app.
        most_upload: bytes of the largest file that a view takes; 0 if none takes any.
    """

    def __init__(self, engine: Engine, most_upload: int) -> None:
        self.engine, self.most_upload = engine, most_upload
        super().__init__(title="ProPhy", analytics_enabled=False, fill_width=False, delete_cache=_CACHE_SECONDS)

    # --- what the gate asks about gradio's queue, see prophy.ui.gate.Mail ---------------------------------------------

    def session_of(self, event: str) -> str:
        waiting = self._queue.event_ids_to_events.get(event)
        return event if waiting is None else waiting.session_hash

    def unread(self, session: str) -> int:
        waiting = self._queue.pending_messages_per_session.get(session)
        return 0 if waiting is None else waiting.qsize()

    def is_queued(self, function: int | str) -> bool:
        if isinstance(function, str):
            found = next((fn for fn in self.fns.values() if fn.api_name == function), None)
        else:
            found = self.fns.get(function)
        # programs wait for whatever is theirs to call
        return found is None or bool(found.queue) or found.api_visibility == "public"

    def left(self, session: str) -> None:
        # gradio's own event for it builds the whole page anew, for every session whose connection closes
        self.engine.close(session)

    def forget_upload(self, name: str) -> None:
        # gradio keeps an event for every name that anybody ever asked about
        file_upload_statuses._signals.pop(name, None)

    def forget_absent(self) -> None:
        queue = self._queue
        busy = {event.session_hash for event in queue.event_ids_to_events.values()}
        for session in {*queue.pending_messages_per_session, *queue.pending_event_ids_session} - busy:
            if not self.engine.presence.is_here(session, _MAIL_SECONDS):
                queue.pending_messages_per_session.pop(session, None)
                queue.pending_event_ids_session.pop(session, None)

    # ------------------------------------------------------------------------------------------------------------------

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *others: Any, **named: Any) -> Any:
        """As gradio does, which fetches what an input calls a file on another machine: here such an input is refused.

        Raises:
            gradio.Error: there is one.
        """
        traverse(inputs, _refuse_remote, is_file_obj_with_meta)
        return await super().preprocess_data(block_fn, inputs, *others, **named)


def _refuse_remote(file: dict[str, Any]) -> dict[str, Any]:
    if is_http_url_like(str(file["path"])):
        raise gr.Error("files of other machines are not fetched: send the file", print_exception=False)
    return file


def build_demo(
    engine: Engine, vlm: str | None = None, *, trainings: Trainings | None = None, evidence: Path | None = None
) -> Page:
    """The page over an engine. Serve it with :func:`launch`, which carries its theme and style.

    Args:
        engine: of the app.
        vlm: see :class:`prophy.ui.tabs.annotate.AnnotateTab`.
        trainings: runs for the Training tab; None: there is no such tab.
        evidence: see :func:`prophy.ui.tabs.evidence.evidence_tab`.
    """
    with Page(engine, most_upload=0 if vlm is None else _LARGEST_CLIP) as demo:
        secret = gr.Textbox(visible="hidden", elem_id="visitor")
        gr.HTML(_HEADER, apply_default_css=False)
        bar = ModelBar(engine)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Generate", id="generate"):
                generate = GenerateTab(engine, bar, secret)
            with gr.Tab("Compare and steer", id="compare") as compare_part:
                compare = CompareTab(engine, bar, secret)
            with gr.Tab("Annotate", id="annotate-tab"):
                AnnotateTab(vlm)
            if trainings is not None:
                with gr.Tab(NAME, id="training"):
                    TrainingTab(trainings, tabs)
            with gr.Tab("Evidence", id="evidence-tab") as evidence_part:
                evidence_tab(evidence_part, evidence)
            with gr.Tab("About", id="about"):
                about_tab(engine.card())
        loaded = generate.wire(demo)
        compare.wire(generate.history, compare_part)
        numbers, quiet = generate.numbers, {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        loaded.then(engine.warm_up, None, None, **quiet)
        asks = [numbers.steps.change, numbers.guidance.change, generate.view.change]

        def on_steer(model: str, event: gr.EventData) -> dict[Any, Any]:
            try:
                run = engine.runs.find(told(event._data, "id"))
                made_by = {card.name: card for card in engine.cards}.get(run.record.model_id)
                card = made_by or engine.card(model)
                filled = compare.to_steer(run, card)
            except EngineError as error:
                return {generate.notice: messages.error(error)}
            switched = {} if card.name == model else {bar.model: card.name, **generate.for_model(card)}
            return {tabs: gr.Tabs(selected="compare"), **switched, **filled}

        def on_model(model: str) -> dict[Any, Any]:
            card = engine.card(model)
            return {**generate.for_model(card), **compare.for_model(card)}

        generate.view.steer(
            on_steer,
            bar.model,
            [tabs, bar.model, generate.notice, *generate.inputs, *compare.inputs],
            **quiet,
        )
        picked = bar.model.input(on_model, bar.model, [*generate.inputs, *compare.inputs], **quiet)
        bar.wire(asks, [loaded, picked], [numbers.steps, numbers.guidance])
        for script in ("below.js", "linked_pair.js", "inside_links.js"):
            demo.load(None, None, None, js=(STATIC / script).read_text(encoding="utf-8"), **quiet)
        endpoints(engine)
    return demo


def launch(
    demo: Page,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = False,
    root_path: str | None = None,
    mcp: bool = False,
) -> str:
    """Serve the page from threads of this process, asking nothing of any other machine.

    Args:
        demo: from :func:`build_demo`.
        host: address to listen on.
        port: None for the first free one from 7860.
        open_browser: open a tab.
        root_path: where a proxy shows the page, if not at the top of its host.
        mcp: offer the endpoints as tools of the Model Context Protocol; the package ``mcp`` must be there.

    Returns:
        The address of the page.

    Raises:
        OSError: the port is taken.
    """
    gate = Middleware(Gate, presence=demo.engine.presence, most_upload=demo.most_upload, mail=demo)
    # What is to wait for its turn is not asked for past the queue, which alone tells when its client is gone.
    app, address, _ = demo.queue(default_concurrency_limit=4, api_open=False).launch(
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
        css_paths=[STATIC / "app.css", EVIDENCE_STYLE],
        show_error=False,  # what nobody foresaw may name anything; the page and the endpoints say what they do
        app_kwargs={"middleware": [gate]},
        # Every generation that waits or runs holds a thread; views, exports and inspections have these besides.
        max_threads=demo.engine.limits.total + _THREADS,
        state_session_capacity=_MOST_SESSIONS,
        max_file_size=max(1, demo.most_upload),
        root_path=None if root_path is None else root_path.rstrip("/"),
        mcp_server=mcp,
        quiet=True,
    )
    # Gradio would describe every component anew for each session, for links that the gate refuses: 16 ms of this
    # process, which generations compute in, whenever somebody asks for the first time.
    app.state_holder.blocks = SimpleNamespace(default_config=demo.default_config, blocks={})
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
