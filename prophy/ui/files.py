"""How a visitor's browser asks for files of a run: see :mod:`prophy.ui.engine.exports`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gradio as gr

from prophy.ui.controls.visit import visitor_of
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError, for_visitors
from prophy.ui.engine.exports import export_for_browser

_GIVEN = ("mode", "index", "step", "opacity", "region", "frame")


def exporter(engine: Engine) -> Callable[[object], dict[str, str]]:
    """What the page's scripts call as ``server.export_run``. Its argument comes from a browser and may be anything."""

    def export_run_for_browser(asked: object, visit: gr.Request | None = None) -> dict[str, str]:
        try:
            if not isinstance(asked, Mapping):
                raise EngineError("the request was malformed: reload the page")
            given = {name: asked[name] for name in _GIVEN if asked.get(name) is not None}
            with engine.exports.taken(visitor_of(visit).address):  # gradio tells no session here
                path = engine.runs.find(str(asked.get("run"))).path
                beside = None if asked.get("beside") is None else engine.runs.find(str(asked["beside"])).path
                return engine.aside.do(export_for_browser, path, beside, engine.scratch.sent, asked.get("what"), given)
        except (EngineError, OSError) as error:
            return {"error": for_visitors(error)}

    export_run_for_browser.__name__ = "export_run"
    return export_run_for_browser
