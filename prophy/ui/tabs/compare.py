"""Compare: two clips of the same noise in one player: two prompts, the branch on and off, or steered and not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from prophy.routing.steering import Steering, SteeringError
from prophy.runs.record import RunError
from prophy.runs.store import Run
from prophy.ui.controls import messages
from prophy.ui.controls.inputs import Size, numbers, request_of, size
from prophy.ui.controls.job import Ticket, Turn
from prophy.ui.controls.model_bar import ModelBar
from prophy.ui.controls.progress import follow
from prophy.ui.controls.run_list import Shelf, poster
from prophy.ui.controls.steer import SteerView, steer_panel
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.models import ModelCard
from prophy.ui.engine.request import Request
from prophy.ui.engine.visitors import owner_of, pair_of, told
from prophy.ui.files import exporter
from prophy.ui.views.compare import CompareView, compare_view
from prophy.ui.views.component import STATIC
from prophy.ui.views.live import live_view

logger = logging.getLogger(__name__)

PROMPTS, BRANCH, STEERING = "Two prompts", "Branch on and off", "Steered and not"


class CompareTab:
    """The tab's parts, built where this is called, inside the page.

    Args:
        engine: of the app.
        bar: which model, in which memory profile.
        secret: the visitor's.
    """

    def __init__(self, engine: Engine, bar: ModelBar, secret: gr.Textbox) -> None:
        self._engine, self._bar = engine, bar
        self._steering = gr.State({})
        card = engine.card()
        self._shipped = _shipped_pair(engine.runs.gallery()) if card.refinement_experts else None
        self._is_opened = gr.State(False)
        with gr.Row(elem_classes="pp-columns", equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_classes="pp-ask"):
                kind = PROMPTS if self._shipped is None else BRANCH
                self._kind = gr.Radio(_kinds(card), value=kind, label="What differs", elem_id="compare-kind")
                record = None if self._shipped is None else self._shipped[0].record
                prompt = "" if record is None else record.prompt
                self.prompt = _prompt("A", "a red ball bounces on the floor", prompt)
                self._other = _prompt("B", "a blue ball bounces on the floor", visible=self._shipped is None)
                self._numbers = numbers(card, "compare-", record)
                self._size = size(card, "compare-")
                with gr.Column(visible=False, elem_id="steering") as self._steer_part:
                    self._panel = steer_panel(_blank_panel(card))
                with gr.Row(elem_classes="pp-actions"):
                    generate = gr.Button("Generate both", variant="primary", elem_id="compare", min_width=120)
                    stop = gr.Button("Stop", interactive=False, elem_id="compare-stop", min_width=80)
                self._notice = gr.HTML(elem_id="compare-notice", elem_classes="pp-notices", apply_default_css=False)
            with gr.Column(scale=9, min_width=320, elem_classes="pp-result"):
                self._live = live_view("compare-live")
                self._view = compare_view(exporter(engine))
        self._turn = Turn(engine, generate, stop, self._live, self._notice, secret)

    def wire(self, history: Shelf, tab: gr.Tab) -> None:
        """Connect the controls.

        Args:
            history: the shelf of the visitor's runs, which these join.
            tab: whose first opening shows the pair of the page's link, or the shipped one, if there is one.
        """
        self._history = history
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        shown = [self._view, self._notice]
        opened = [self._is_opened, self._bar.model]
        tab.select(self._on_open, opened, [self._is_opened, *shown, *self.inputs], queue=False, **quiet)
        self._view.revisit(self._on_pair, self._bar.model, [*shown, *self.inputs], queue=False, **quiet)
        self._kind.change(self._on_kind, self._kind, [self._other, self._steer_part], queue=False, **quiet)
        self._panel.steer(self._on_steer, None, [self._steering, self._notice], queue=False, **quiet)
        self._view.copy(
            self._on_copy,
            [self._kind, self._bar.model],
            [self._notice, *self.inputs],
            queue=False,
            **quiet,
        )
        both = [self.prompt, self._other]
        self._view.swap(None, both, both, js=(STATIC / "swap_prompts.js").read_text(encoding="utf-8"), **quiet)
        self._turn.wire(
            [self.prompt.submit, self._other.submit],
            self._on_ask,
            [self._kind, self.prompt, self._other, self._steering, *self._asked],
            self._on_generate,
            [self._view, *history.outputs],
        )

    @property
    def inputs(self) -> list[gr.blocks.Block]:
        """What :meth:`for_model` and :meth:`to_steer` fill."""
        steered = [self._panel, self._steering]
        return [self._kind, self._other, self._steer_part, self.prompt, *self._numbers, *self._size, *steered]

    @property
    def _asked(self) -> list[gr.components.Component]:
        """What both requests are made of besides their prompts, in the order of :meth:`_requests`."""
        return [*self._size, *self._numbers, *self._bar.inputs]

    def for_model(self, card: ModelCard) -> dict[Any, Any]:
        """What shows the controls of a model, nothing steered."""
        panel = _blank_panel(card)
        return {
            self._kind: gr.update(choices=_kinds(card), value=PROMPTS),
            self._other: gr.update(visible=True),
            self._steer_part: gr.update(visible=False),
            self._numbers.steps: card.made.steps,
            self._numbers.guidance: card.made.guidance,
            **self._size.of_model(card),
            self._panel: None if panel is None else panel.as_json(),
            self._steering: {},
        }

    def to_steer(self, run: Run, card: ModelCard) -> dict[Any, Any]:
        """Fill the controls with a run's, ready to steer it with a model's experts.

        Raises:
            EngineError: the model has none, or the run's routing is broken.
        """
        if (panel := _blank_panel(card)) is None:
            raise EngineError(f"{card.name} has no physical branch here, so no experts to steer")
        return {
            **self.for_model(card),
            self._kind: gr.update(choices=_kinds(card), value=STEERING),
            self._other: gr.update(visible=False),
            self._steer_part: gr.update(visible=True),
            **self._asked_as(run),
            self._panel: self._panel_on(panel, run),
            self._steering: run.record.steering.to_json(),
        }

    def _asked_as(self, run: Run) -> dict[Any, Any]:
        """Prompt, seed, steps, guidance and size of a run."""
        record = run.record
        return {
            self.prompt: record.prompt,
            self._numbers.seed: record.seed,
            self._numbers.steps: record.settings["steps"],
            self._numbers.guidance: record.settings["guidance"],
            **self._size.of_run(record, self._engine.cards),
        }

    def _panel_on(self, panel: SteerView, run: Run) -> dict[str, Any]:
        try:
            trace = run.trace()
        except RunError as error:
            raise EngineError(str(error)) from None
        return panel.on_run(run.record.steering, poster(run), trace, self._engine.experts_of(run)).as_json()

    def _on_open(self, is_opened: bool, model: str, visit: gr.Request) -> dict[Any, Any]:
        """The first time, the two runs that the page's link names, or the shipped pair."""
        update: dict[Any, Any] = {self._is_opened: True}
        if is_opened:
            return update
        if (asked := pair_of(visit.query_params)) is not None:
            update |= self._linked(*asked, model)
        if self._view not in update and self._shipped is not None:
            try:
                update[self._view] = self._beside(*self._shipped)
            except EngineError as error:
                logger.warning("cannot show the shipped pair: %s", error)
        return update

    def _on_pair(self, model: str, event: gr.EventData) -> dict[Any, Any]:
        return self._linked(told(event._data, "a"), told(event._data, "b"), model)

    def _linked(self, a: str, b: str, model: str) -> dict[Any, Any]:
        """What shows two runs by their ids, which may come from anyone, and asks for two such."""
        try:
            ours, theirs = self._engine.runs.find(a), self._engine.runs.find(b)
            shown = {self._view: self._beside(ours, theirs), self._notice: ""}
        except EngineError as error:
            return {self._notice: messages.error(f"the link cannot be opened: {error}")}
        kind = _what_differs(ours, theirs) if self._engine.card(model).refinement_experts else PROMPTS
        if kind != PROMPTS and not _is_second(theirs, kind):
            ours, theirs = theirs, ours
        try:
            return {**shown, **self._form(kind, model, ours, theirs)}
        except EngineError as error:
            return {**shown, self._notice: messages.error(f"the form cannot ask for these two: {error}")}

    def _beside(self, a: Run, b: Run) -> dict[str, Any]:
        """The view's value.

        Raises:
            EngineError: the two do not fit, or one is broken.
        """
        try:
            measured = self._engine.experts_of(a), self._engine.experts_of(b)
            return CompareView.of(a, b, _labels(a, b), measured).as_json()
        except (ValueError, RunError, OSError) as error:
            raise EngineError(str(error)) from None

    def _on_kind(self, kind: str) -> dict[Any, Any]:
        return {
            self._other: gr.update(visible=kind == PROMPTS),
            self._steer_part: gr.update(visible=kind == STEERING),
        }

    def _on_steer(self, event: gr.EventData) -> dict[Any, Any]:
        document = event._data.get("steering") if isinstance(event._data, dict) else None
        try:
            Steering.from_json(document)
        except SteeringError as error:
            return {self._steering: {}, self._notice: messages.error(error)}
        return {self._steering: document, self._notice: ""}

    def _on_copy(self, kind: str, model: str, event: gr.EventData) -> dict[Any, Any]:
        """Copy A to the form: it then asks for what A was made with, on both sides; without the branch, for that and
        its counterpart."""
        try:
            run = self._engine.runs.find(told(event._data, "id"))
            if self._engine.card(model).refinement_experts:
                if run.routing_path is None:
                    kind = BRANCH
                elif not run.record.steering.is_neutral:
                    kind = STEERING
            return {**self._form(kind, model, run, run), self._notice: ""}
        except EngineError as error:
            return {self._notice: messages.error(error)}

    def _form(self, kind: str, model: str, a: Run, b: Run) -> dict[Any, Any]:
        """Fill the controls with what makes two runs; where they are steered and not, the steering is B's.

        Raises:
            EngineError: B's routing, which the panel shows, is broken.
        """
        form = {
            **self._asked_as(a),
            self._kind: kind,
            self._other: gr.update(value=b.record.prompt, visible=kind == PROMPTS),
            self._steer_part: gr.update(visible=kind == STEERING),
        }
        panel = _blank_panel(self._engine.card(model))
        if kind == STEERING and panel is not None:
            form |= {self._panel: self._panel_on(panel, b), self._steering: b.record.steering.to_json()}
        return form

    # --- generating --------------------------------------------------------------------------------------------------

    def _on_ask(
        self, secret: str | None, kind: str, prompt: str, other: str, steering: dict, *asked: Any
    ) -> dict[Any, Any]:
        try:
            a, b = self._requests(kind, prompt, other, steering, asked)
            return self._turn.begin([a, b], f"A · {a.prompt}", secret)
        except (EngineError, SteeringError) as error:
            return self._turn.refuse(error)

    def _requests(
        self, kind: str, prompt: str, other: str, steering: dict, asked: tuple[Any, ...]
    ) -> tuple[Request, Request]:
        of_clip, numbers = dict(zip(Size._fields, asked[:3], strict=True)), asked[3:]
        a = request_of(prompt, *numbers, **of_clip)
        if kind == BRANCH:
            return a, replace(a, use_branch=False)
        if kind == STEERING:
            steered = Steering.from_json(steering)
            if steered.is_neutral:
                raise EngineError("nothing is steered: mute, boost or invert an expert, or force one on a region")
            return a, replace(a, steering=steered)
        return a, request_of(other, *numbers, **of_clip)

    def _on_generate(self, ticket: Ticket | None, secret: str | None, visit: gr.Request) -> Iterator[dict[Any, Any]]:
        if ticket is None or not self._turn.admits(ticket, secret):
            yield self._turn.nothing()
            return
        runs: list[Run] = []
        owner = owner_of(secret)
        for side, request in zip("AB", ticket.requests, strict=True):
            if self._turn.is_withdrawn(ticket):  # stopped between the two
                yield {self._live: None, **self._turn.ended()}
                return
            if (made := self._engine.same_run(request, owner)) is not None:
                runs.append(made)
                continue
            moment = None
            title = f"{side} · {request.prompt}"
            for moment in follow(self._engine, request, visit, owner, title):
                if moment.run is None:
                    update: dict[Any, Any] = {self._live: None if moment.live is None else moment.live.as_json()}
                    if moment.notice is not None:
                        update[self._notice] = moment.notice
                    yield {**update, **(self._turn.ended() if moment.is_over else {})}
            if moment is None or moment.run is None:
                return
            runs.append(moment.run)
            yield self._history.update(self._engine.runs.history(owner))
        try:
            view = self._beside(*runs)
        except EngineError as error:
            yield {self._live: None, self._notice: messages.error(error), **self._turn.ended()}
            return
        yield {self._live: None, self._view: view, **self._turn.ended()}


def _kinds(card: ModelCard) -> list[str]:
    return [PROMPTS, BRANCH, STEERING] if card.refinement_experts else [PROMPTS]


def _what_differs(a: Run, b: Run) -> str:
    """Which of the three comparisons two runs are."""
    if a.record.prompt == b.record.prompt:
        if (a.routing_path is None) != (b.routing_path is None):
            return BRANCH
        if a.record.steering.is_neutral != b.record.steering.is_neutral:
            return STEERING
    return PROMPTS


def _is_second(run: Run, kind: str) -> bool:
    """Whether the form makes such a run as B: it switches the branch off, or steers, on that side."""
    return run.routing_path is None if kind == BRANCH else not run.record.steering.is_neutral


def _blank_panel(card: ModelCard) -> SteerView | None:
    if not card.refinement_experts:
        return None
    return SteerView.of(card.semantic_experts, card.refinement_experts, card.grid, card.experts)


def _prompt(side: str, placeholder: str, value: str = "", *, visible: bool = True) -> gr.Textbox:
    return gr.Textbox(
        value,
        label=f"{side}: what should happen?",
        placeholder=placeholder,
        lines=2,
        max_lines=5,
        visible=visible,
        elem_id=f"compare-prompt-{side.lower()}",
    )


def _shipped_pair(runs: Sequence[Run]) -> tuple[Run, Run] | None:
    """The first shipped run that was made with its branch and, of the same noise, without; None if there is none."""
    bare = [run for run in runs if run.routing_path is None]
    for a in runs:
        for b in bare:
            ours, theirs = a.record, b.record
            is_same = (ours.prompt, ours.seed, ours.settings) == (theirs.prompt, theirs.seed, theirs.settings)
            if is_same and a.routing_path is not None and ours.steering.is_neutral:
                return a, b
    return None


def _labels(a: Run, b: Run) -> tuple[str, str]:
    """What sets each side apart, in a few words; nothing where both were made alike."""
    are_bare = [run.routing_path is None for run in (a, b)]
    if all(are_bare):
        return "", ""
    ours, theirs = (
        "branch off" if is_bare else ", ".join(run.record.steering.describe())
        for run, is_bare in zip((a, b), are_bare, strict=True)
    )
    if not ours and not theirs:
        return "", ""
    otherwise = "branch on" if any(are_bare) else "not steered"
    return ours or otherwise, theirs or otherwise
