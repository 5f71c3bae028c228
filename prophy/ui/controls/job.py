"""A visitor's turn with the model: the buttons that begin and end it, the live view between them, and its ticket."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr

from prophy.ui.controls import messages
from prophy.ui.controls.progress import waiting
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.request import Request
from prophy.ui.engine.visitors import owner_of


class Ticket(NamedTuple):
    """What was asked for and found good. A ticket that was stopped before its turn is withdrawn by its number."""

    number: str
    owner: str
    requests: tuple[Request, ...]


class Turn:
    """Everything about asking for clips, but what is asked for and what is done with them.

    Args:
        engine: of the app.
        generate, stop: the buttons.
        live: the live view.
        notice: where errors are said.
        secret: the visitor's.
    """

    def __init__(
        self, engine: Engine, generate: gr.Button, stop: gr.Button, live: gr.HTML, notice: gr.HTML, secret: gr.Textbox
    ) -> None:
        self._engine, self._secret = engine, secret
        self._generate, self._stop, self._live, self._notice = generate, stop, live, notice
        self._ticket = gr.State()
        self._withdrawn: set[str] = set()

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What the updates of a turn change."""
        return [self._live, self._notice, self._generate, self._stop]

    def wire(
        self,
        asks: Sequence[Callable],
        on_ask: Callable,
        asked: Sequence[gr.components.Component],
        on_generate: Callable,
        shown: Sequence[gr.blocks.Block],
    ) -> None:
        """Connect the buttons.

        Args:
            asks: event listeners that begin a turn besides the button, such as a submitted prompt.
            on_ask: from the visitor's secret and ``asked`` to :meth:`begin`'s or :meth:`refuse`'s update.
            asked: components it reads.
            on_generate: a generator of updates, from a ticket or None, the visitor's secret and their visit.
            shown: what its updates change besides ``outputs``.
        """
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on(
            [self._generate.click, *asks],
            on_ask,
            [self._secret, *asked],
            [self._ticket, *self.outputs],
            queue=False,
            **quiet,
        ).then(
            on_generate,
            [self._ticket, self._secret],
            [*self.outputs, *shown],
            concurrency_limit=None,  # the engine keeps its own line, bounded, and says how long it is
            trigger_mode="multiple",
            **quiet,
        )
        # Not gradio's `cancels`: it ends the event from outside and may blank whatever the event was to fill.
        self._stop.click(self._on_stop, [self._ticket, self._secret], self.outputs, queue=False, **quiet)

    def begin(self, requests: Sequence[Request], title: str, secret: str | None) -> dict[Any, Any]:
        """The update of a turn that was asked for.

        Raises:
            EngineError: a request cannot be met.
        """
        for request in requests:
            self._engine.check(request)
        return {
            self._ticket: Ticket(secrets.token_hex(8), owner_of(secret), tuple(requests)),
            self._notice: "",
            self._live: waiting(title, self._engine.ahead).as_json(),
            **self.running(),
        }

    def refuse(self, error: ValueError) -> dict[Any, Any]:
        """The update of a turn that cannot be."""
        return {self._ticket: None, self._notice: messages.error(error)}

    def admits(self, ticket: Ticket | None, secret: str | None) -> bool:
        """Whether there is a ticket, of this visitor, that was not stopped before its turn."""
        return ticket is not None and ticket.owner == owner_of(secret) and not self.is_withdrawn(ticket)

    def is_withdrawn(self, ticket: Ticket) -> bool:
        """Whether this one was stopped before its turn; it is forgotten."""
        was = ticket.number in self._withdrawn
        self._withdrawn.discard(ticket.number)
        return was

    def nothing(self) -> dict[Any, Any]:
        """The update that changes nothing: gradio blanks every output of a generator that ends without a word."""
        return {self._notice: gr.skip()}

    def running(self) -> dict[Any, Any]:
        """The update that lets a visitor stop what is under way."""
        return {self._generate: gr.update(interactive=False), self._stop: gr.update(interactive=True)}

    def ended(self) -> dict[Any, Any]:
        """The update that lets a visitor ask again."""
        return {self._generate: gr.update(interactive=True), self._stop: gr.update(interactive=False)}

    def _on_stop(self, ticket: Ticket | None, secret: str | None, visit: gr.Request) -> dict[Any, Any]:
        owner = owner_of(secret)
        if self._engine.stop(visit.session_hash or "", owner):
            return self.nothing()  # the generation's own event, which owns the live view, says so
        if ticket is not None and ticket.owner == owner:  # gradio finds a ticket by its session, which is no secret
            self._withdrawn.add(ticket.number)
        return {self._live: None, **self.ended()}
