"""Runs as cards on a shelf: the gallery and the visitor's own."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import gradio as gr

from prophy.runs.store import Run
from prophy.ui.engine.engine import Engine
from prophy.ui.files import exporter
from prophy.ui.views.component import component

_POSTER_SIDE = 192  # of a card, in pixels


class Shelf(NamedTuple):
    """A heading with cards under it; hidden while it is empty.

    The events of ``cards``, ``choose`` and ``delete``, carry the run's id; ``refresh`` comes when the page is looked at
    again.
    """

    part: gr.Column
    cards: gr.HTML
    is_own: bool

    @property
    def outputs(self) -> tuple[gr.Column, gr.HTML]:
        """What :meth:`update` changes."""
        return self.part, self.cards

    def update(self, runs: list[Run]) -> dict[gr.components.Component | gr.blocks.Block, Any]:
        """What shows these runs."""
        cards = [_card(run, self.is_own) for run in runs]
        return {self.part: gr.update(visible=_visible(runs)), self.cards: cards}


def shelf(elem_id: str, name: str, note: str, engine: Engine, runs: Sequence[Run] = (), *, is_own: bool) -> Shelf:
    """Build a shelf.

    Args:
        elem_id: of the cards.
        name: the heading.
        note: beside it.
        engine: of the app.
        runs: what lies on it at first.
        is_own: whether a visitor may keep and delete what lies on it.
    """
    with gr.Column(visible=_visible(runs), elem_classes="pp-shelf") as part:
        heading = f'<h3 class="pp-heading">{html.escape(name)} <span>{html.escape(note)}</span></h3>'
        gr.HTML(heading, apply_default_css=False)
        cards = component(
            "run_list",
            ("routing.js", "download.js", "to_player.js", "run_list.js"),
            [_card(run, is_own) for run in runs],
            elem_id=elem_id,
            server_functions=[exporter(engine)],
        )
    return Shelf(part, cards, is_own)


def _visible(runs: Sequence[Run]) -> bool | str:
    return True if runs else "hidden"  # in the page all the same, so that its script runs


def poster(run: Run) -> str:
    """A small copy of a run's poster as a data address; empty if it cannot be read."""
    return _poster(run.poster_path, run.files["poster.png"].sha256)


def _card(run: Run, is_own: bool) -> dict[str, Any]:
    marks = ["steered"] if not run.record.steering.is_neutral else []
    marks += ["no branch"] if run.routing_path is None else []
    return {
        "id": run.id,
        "prompt": run.record.prompt,
        "seed": run.record.seed,
        "marks": marks,
        "is_own": is_own,
        "poster": poster(run),
    }


@lru_cache(maxsize=256)
def _poster(path: Path, digest: str) -> str:
    picture = cv2.imread(str(path))
    if picture is None:
        return ""
    scale = _POSTER_SIDE / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(cv2.imencode(".jpg", small)[1].tobytes()).decode()
