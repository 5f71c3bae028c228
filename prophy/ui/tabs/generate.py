"""Generate: ask for a clip, watch it being made, look at its routing; the gallery and the visitor's own runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.events import Dependency

from prophy import phenomena
from prophy.evaluation.prompts.fixed import FIXED_PROMPTS
from prophy.evaluation.prompts.gallery import SHIPPED
from prophy.runs.record import RunError
from prophy.runs.store import Run
from prophy.ui.controls import messages
from prophy.ui.controls.inputs import Numbers, numbers, request_of, sampling, size
from prophy.ui.controls.job import Ticket, Turn
from prophy.ui.controls.model_bar import ModelBar
from prophy.ui.controls.progress import follow, follow_again
from prophy.ui.controls.run_list import Shelf, shelf
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.models import ModelCard
from prophy.ui.engine.visitors import owner_of, run_of, told
from prophy.ui.files import exporter
from prophy.ui.tabs.about import about_model
from prophy.ui.views.component import STATIC, component
from prophy.ui.views.live import live_view
from prophy.ui.views.routing import RunView, routing_view

logger = logging.getLogger(__name__)

#: Fixed prompts whose results are shipped, so that an example opens at once.
EXAMPLES = tuple(one for one in FIXED_PROMPTS if one.seed in SHIPPED and one.seed not in (101, 122, 123))
BATCH = 4  #: clips of one prompt, of seeds in a row


class GenerateTab:
    """The tab's parts, built where this is called, inside the page.

    Attributes:
        view: the routing view; its event ``steer`` carries the id of the run on show.
        history: the visitor's own runs.

    Args:
        engine: of the app.
        bar: which model, in which memory profile.
        secret: the visitor's, see ``static/visitor.js``; it comes with every event that changes something.
    """

    def __init__(self, engine: Engine, bar: ModelBar, secret: gr.Textbox) -> None:
        self._engine, self._bar, self._secret = engine, bar, secret
        shipped = engine.runs.gallery()
        self._first = shipped[0] if shipped else None
        self._built_in = None if self._first is None else _built_in(self._first, engine)
        card = engine.card()
        with gr.Row(elem_classes="pp-columns", equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_classes="pp-ask"):
                self.prompt = gr.Textbox(
                    label="What should happen?",
                    placeholder="a red ball bounces on the floor",
                    lines=2,
                    max_lines=5,
                    elem_id="prompt",
                )
                self._words = component("typed_words", ("words.js", "typed_words.js"), list(card.words))
                chips = [_chip(i) for i in range(len(EXAMPLES))]
                self._examples = component("examples", ("to_player.js", "examples.js"), chips)
                self.numbers: Numbers = numbers(card)
                self._size = size(card)
                self._sampling = sampling(card, self.numbers.steps, self.numbers.guidance)
                self._batch = gr.Checkbox(label=f"{BATCH} clips, of this seed and the next ones", elem_id="batch")
                self._attention = gr.Checkbox(
                    label="Record what the backbone attends to, for the view Words", elem_id="record-attention"
                )
                with gr.Row(elem_classes="pp-actions"):
                    generate = gr.Button("Generate", variant="primary", elem_id="generate", min_width=120)
                    stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=80)
                self.notice = gr.HTML(elem_id="notice", elem_classes="pp-notices", apply_default_css=False)
                self._about = gr.HTML(about_model(card), apply_default_css=False, elem_id="about-model")
            with gr.Column(scale=9, min_width=320, elem_classes="pp-result"):
                self._live = live_view()
                self.view = routing_view(exporter(engine), self._built_in)
        self._turn = Turn(engine, generate, stop, self._live, self.notice, secret)
        self._gallery: Shelf = shelf(
            "gallery", "Gallery", "shipped with the code; opens without the model", engine, shipped, is_own=False
        )
        kept = f"kept in {engine.runs.folder.name}/" if engine.runs.last else "gone when this Space restarts: save them"
        self.history: Shelf = shelf("history", "Your runs", kept, engine, is_own=True)

    def wire(self, demo: gr.Blocks) -> Dependency:
        """Connect the controls.

        Returns:
            The event that a page is complete.
        """
        shown = [self.view, self._live, self.notice]
        lists = self.history.outputs
        quiet = {"show_progress": "hidden", "api_visibility": "private"}

        # The page stands already; the script never fails, whatever the browser allows.
        came = demo.load(None, None, self._secret, js=(STATIC / "visitor.js").read_text(encoding="utf-8"), **quiet)
        loaded = came.then(self._on_load, self._secret, [*shown, *lists], queue=False, **quiet)
        loaded.then(
            self._on_return,
            self._secret,
            [*self._turn.outputs, self.view, *lists],
            concurrency_limit=None,
            **quiet,
        )
        filled = [*shown, self.prompt, *self.numbers, *self._size]
        self._examples.choose(self._on_example, self._secret, filled, queue=False, **quiet)
        for runs in (self._gallery, self.history):
            runs.cards.choose(self._on_choose, self._secret, filled, queue=False, **quiet)
        self.view.revisit(self._on_revisit, self._secret, shown, queue=False, **quiet)
        self.history.cards.delete(self._on_delete, self._secret, [*lists, self.notice], queue=False, **quiet)
        self.history.cards.refresh(self._on_refresh, self._secret, lists, queue=False, **quiet)
        asked = [self.prompt, *self.numbers, *self._bar.inputs, *self._sampling, *self._size]
        inputs = [self._batch, self._attention, *asked]
        self._turn.wire([self.prompt.submit], self._on_ask, inputs, self._on_generate, [self.view, *lists])
        return loaded

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What :meth:`for_model` fills."""
        return [self._about, self._words, self.numbers.steps, self.numbers.guidance, *self._sampling, *self._size]

    def for_model(self, card: ModelCard) -> dict[Any, Any]:
        """What shows the controls of a model."""
        return {
            self._about: about_model(card),
            self._words: list(card.words),
            self.numbers.steps: card.made.steps,
            self.numbers.guidance: card.made.guidance,
            self._sampling.negative_prompt: card.made.negative_prompt,
            self._sampling.guidance_2: gr.update(
                value=card.made.guidance_2, visible=card.model_config.transformers > 1
            ),
            self._sampling.flow_shift: card.made.flow_shift,
            self._sampling.sampler: "",
            **self._size.of_model(card),
        }

    # --- opening -----------------------------------------------------------------------------------------------------

    def open(self, run: Run, *, by_link: bool = False) -> dict[Any, Any]:
        """What shows a run; what says why not, if its files are broken."""
        try:
            trace, attention = run.trace(), run.attention()
            measured = self._engine.experts_of(run)
            value = RunView.of(run, trace, measured=measured, by_link=by_link, attention=attention)
        except (RunError, OSError) as error:
            logger.warning("cannot open a run: %s", error)
            return {self._live: None, self.notice: messages.error(f"this run cannot be opened: {error}")}
        return {self.view: value.as_json(), self._live: None}

    def _on_load(self, secret: str | None, visit: gr.Request) -> dict[Any, Any]:
        mine = self._engine.runs.history(owner_of(secret))
        asked, complaint = run_of(visit.query_params), None
        opened = {}
        if asked is not None:
            try:
                opened = self.open(self._engine.runs.find(asked), by_link=True)
            except EngineError as error:
                complaint = messages.error(f"the link cannot be opened: {error}")
        is_open = self._built_in is not None and asked is None
        if not opened and not is_open and (first := self._first or next(iter(mine), None)) is not None:
            opened = self.open(first, by_link=asked is not None)
        return {
            **self.history.update(mine),
            # The live view is left alone: on a slow machine a generation may have begun meanwhile.
            **{part: new for part, new in opened.items() if part is not self._live},
            **({} if complaint is None else {self.notice: complaint}),
        }

    def _on_return(self, secret: str | None, visit: gr.Request) -> Iterator[dict[Any, Any]]:
        """The generation that was under way when the page was loaded anew, if any was, to its end."""
        owner = owner_of(secret)
        yield self._turn.nothing()
        for moment in follow_again(self._engine, visit, owner):
            update: dict[Any, Any] = {self._live: None if moment.live is None else moment.live.as_json()}
            update |= self._turn.ended() if moment.is_over else self._turn.running()
            if moment.notice is not None:
                update[self.notice] = moment.notice
            if moment.run is not None:
                update |= {**self.open(moment.run), **self.history.update(self._engine.runs.history(owner))}
            yield update

    def _on_choose(self, secret: str | None, event: gr.EventData, visit: gr.Request) -> dict[Any, Any]:
        return self._open_asked(told(event._data, "id"), secret, visit)

    def _on_revisit(self, secret: str | None, event: gr.EventData, visit: gr.Request) -> dict[Any, Any]:
        return self._open_asked(told(event._data, "id"), secret, visit, by_link=True)

    def _open_asked(
        self, run_id: str, secret: str | None, visit: gr.Request, *, by_link: bool = False
    ) -> dict[Any, Any]:
        """What shows a run that was chosen, and asks for it in the form, unless the browser only went back to it."""
        try:
            run = self._engine.runs.find(run_id)
        except EngineError as error:
            return {self.notice: messages.error(error)}
        opened = {self.notice: "", **self.open(run, by_link=by_link), **({} if by_link else self._asked_as(run))}
        if self._engine.is_generating(visit.session_hash or "", owner_of(secret)):
            del opened[self._live]  # what is said of the clip that is being made stays
            if not opened[self.notice]:
                del opened[self.notice]
        return opened

    def _asked_as(self, run: Run) -> dict[Any, Any]:
        """The form as it would ask for a run."""
        record = run.record
        return {
            self.prompt: record.prompt,
            self.numbers.seed: record.seed,
            self.numbers.steps: record.settings["steps"],
            self.numbers.guidance: record.settings["guidance"],
            **self._size.of_run(record, self._engine.cards),
        }

    def _on_refresh(self, secret: str | None) -> dict[Any, Any]:
        return self.history.update(self._engine.runs.history(owner_of(secret)))

    def _on_delete(self, secret: str | None, event: gr.EventData) -> dict[Any, Any]:
        owner = owner_of(secret)
        try:
            self._engine.runs.delete(told(event._data, "id"), owner)
            said = ""
        except EngineError as error:
            said = messages.error(error)
        return {**self.history.update(self._engine.runs.history(owner)), self.notice: said}

    def _on_example(self, secret: str | None, event: gr.EventData, visit: gr.Request) -> dict[Any, Any]:
        index = event._data.get("index") if isinstance(event._data, dict) else 0
        example = EXAMPLES[index % len(EXAMPLES) if isinstance(index, int) else 0]
        for run in self._engine.runs.gallery():
            if (run.record.prompt, run.record.seed) == (example.prompt, example.seed):
                return self._open_asked(run.id, secret, visit)
        return {self.prompt: example.prompt, self.numbers.seed: example.seed}

    # --- generating --------------------------------------------------------------------------------------------------

    def _on_ask(self, secret: str | None, batch: bool, attention: bool, *asked: Any) -> dict[Any, Any]:
        try:
            request = replace(request_of(*asked), attention=bool(attention))
            requests = [replace(request, seed=request.seed + i) for i in range(BATCH if batch else 1)]
            return self._turn.begin(requests, request.prompt, secret)
        except EngineError as error:
            return self._turn.refuse(error)

    def _on_generate(self, ticket: Ticket | None, secret: str | None, visit: gr.Request) -> Iterator[dict[Any, Any]]:
        if ticket is None or not self._turn.admits(ticket, secret):
            yield self._turn.nothing()
            return
        owner, count = owner_of(secret), len(ticket.requests)
        made: list[Run] = []
        for place, request in enumerate(ticket.requests, 1):
            if self._turn.is_withdrawn(ticket):  # stopped between two
                yield {self._live: None, **self._turn.ended()}
                return
            title = request.prompt if count == 1 else f"{place} of {count}, seed {request.seed} · {request.prompt}"
            moment = None
            for moment in follow(self._engine, request, visit, owner, title):
                update: dict[Any, Any] = {self._live: None if moment.live is None else moment.live.as_json()}
                if moment.notice is not None:
                    update[self.notice] = moment.notice
                if moment.is_over and (moment.run is None or place == count):
                    update |= self._turn.ended()
                if moment.run is not None:
                    made.append(moment.run)
                    update |= self.history.update(self._engine.runs.history(owner))
                    if place == count:
                        update |= {**self.open(made[0]), self.notice: _made_in_a_row(made)}
                yield update
            if moment is None or moment.run is None:
                return


def _made_in_a_row(runs: list[Run]) -> str:
    if len(runs) == 1:
        return ""
    first, last = runs[0].record.seed, runs[-1].record.seed
    return messages.note(f"{len(runs)} clips were made, seeds {first} to {last}: the first is on show, all are below.")


def _built_in(run: Run, engine: Engine) -> dict[str, Any] | None:
    """The view of a run that the page is built with: on show before anything is asked of the server. None for a run
    that cannot be read: opening it later says why."""
    try:
        return RunView.of(run, run.trace(), measured=engine.experts_of(run), attention=run.attention()).as_json()
    except (RunError, OSError):
        return None


def _chip(index: int) -> dict[str, Any]:
    example = EXAMPLES[index]
    known = [phenomena.by_id(phenomenon) for phenomenon in example.phenomena]
    return {
        "prompt": example.prompt,
        "label": " + ".join(phenomenon.name for phenomenon in known),
        "colours": [phenomenon.colour for phenomenon in known],
    }
