"""A generation as the page follows it: what the live view and the notice show after every event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from prophy.runs.store import Run
from prophy.ui.controls import messages
from prophy.ui.controls.visit import asked_by
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.events import Finished, Opening, Started
from prophy.ui.engine.line import Waiting
from prophy.ui.engine.request import Request
from prophy.ui.views.live import LiveView, duration

if TYPE_CHECKING:
    from prophy.ui.engine.engine import Event


@dataclass(frozen=True)
class Moment:
    """What there is to show.

    Attributes:
        live: the live view; None hides it.
        notice: HTML; None leaves what is there.
        run: the finished run.
        is_over: nothing comes after this.
    """

    live: LiveView | None
    notice: str | None = None
    run: Run | None = None
    is_over: bool = False


def follow(engine: Engine, request: Request, visit: gr.Request, owner: str, title: str) -> Iterator[Moment]:
    """Generate and yield every moment. The last one is over: it has the run, or says why there is none.

    Closing the iterator, as gradio does when the page is gone, leaves the generation to :func:`follow_again` for some
    seconds.

    Args:
        engine: of the app.
        request: what to generate.
        visit: of the page that asks.
        owner: who asks.
        title: above the live view.
    """
    session = visit.session_hash or ""
    events = engine.generate(request, session, owner, may_return=True, **asked_by(engine, visit))
    yield from _moments(engine, events, title)


def follow_again(engine: Engine, visit: gr.Request, owner: str) -> Iterator[Moment]:
    """:func:`follow` a generation of an owner whose page was loaded anew; no moment if there is none.

    Args:
        engine: of the app.
        visit: of the page that asks.
        owner: who asks.
    """
    session = visit.session_hash or ""
    found = engine.returned(session, owner, is_here=lambda: engine.presence.is_here(session))
    if found is not None:
        yield from _moments(engine, found.events, found.prompt)


def _moments(engine: Engine, events: Iterator[Event], title: str) -> Iterator[Moment]:
    from prophy.generation.generate import GenerationStopped

    preview = None
    try:
        for event in events:
            if isinstance(event, Waiting):
                yield Moment(waiting(title, event.ahead, event.seconds))
            elif isinstance(event, Opening):
                yield Moment(LiveView(title, "Opening the model", _why_opening(engine, event.model)))
            elif isinstance(event, Started):
                live = LiveView(title, f"Step 0 of {event.steps}", total=event.steps)
                yield Moment(live, messages.unknown_words(event.unknown_words))
            elif isinstance(event, Finished):
                yield Moment(None, "", event.run, is_over=True)
            else:
                preview = event
                yield Moment(LiveView.of(title, preview))
    except GenerationStopped:
        yield Moment(LiveView.of_stopped(title, preview), is_over=True)
    except EngineError as error:
        yield Moment(None, messages.error(error), is_over=True)


def waiting(title: str, ahead: int, seconds: float | None = None) -> LiveView:
    """Before anything happens.

    Args:
        title: above the live view.
        ahead: how many others come first.
        seconds: that these will take; None if it is not known.
    """
    if ahead:
        others = "another clip is" if ahead == 1 else f"{ahead} other clips are"
        time = "" if seconds is None else f", about {duration(seconds)}"
        return LiveView(title, "Waiting", f"{others} being made first{time}")
    return LiveView(title, "Starting")


def _why_opening(engine: Engine, model: str) -> str:
    return "only the first time" if len(engine.cards) == 1 else f"{model}; one is open at a time"
