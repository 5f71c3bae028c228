"""Files of a run for a visitor to keep: the overlay as a video or a GIF, a still, the trace, a zip; two runs in one."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import gradio as gr

from prophy.runs.export import (
    PairLayout,
    export_gif,
    export_overlay,
    export_pair,
    export_still,
    export_trace,
    export_zip,
)
from prophy.runs.layer import ExportError, OverlaySettings, ShownMode
from prophy.runs.record import RunError
from prophy.runs.store import Run
from prophy.ui.controls.visit import visitor_of
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError, for_visitors

What = Literal["video", "overlay", "gif", "still", "trace", "zip"]
_SUFFIXES: dict[What, str] = {
    "video": ".mp4",
    "overlay": ".mp4",
    "gif": ".gif",
    "still": ".png",
    "trace": ".npz",
    "zip": ".zip",
}
_TYPES = {
    ".mp4": "video/mp4",
    ".gif": "image/gif",
    ".png": "image/png",
    ".npz": "application/octet-stream",
    ".zip": "application/zip",
}


def export_run(
    run: Run,
    folder: Path,
    what: What,
    *,
    mode: str = "phenomena",
    index: int | None = None,
    step: int | None = None,
    opacity: float | None = None,
    region: tuple[int, int, int, int, int] | None = None,
    frame: int = 0,
) -> Path:
    """Write one file of a run into ``folder``; see :mod:`prophy.runs.export` for the arguments. With an opacity of 0 it
    is the clip alone, without a legend of what is not there.

    Raises:
        EngineError: it cannot be; one line.
    """
    if what not in get_args(What):
        raise EngineError(f"{str(what)[:40]!r} cannot be exported: choose {', '.join(get_args(What))}")
    out = Path(folder) / f"{run.id}-{what}{_SUFFIXES[what]}"
    try:
        if what == "video":
            out.write_bytes(run.read_bytes("video.mp4"))
            return out
        if what == "trace":
            return export_trace(run, out, overwrite=True)
        if what == "zip":
            return export_zip(run, out, overwrite=True)
        settings = OverlaySettings(cast(ShownMode, mode), index, step, opacity, region)  # refuses what is none
        shown = None if opacity == 0 else settings
        if what == "gif":
            return export_gif(run, out, shown, overwrite=True)
        if what == "still":
            return export_still(run, out, shown, frame, overwrite=True)
        if shown is None:
            out.write_bytes(run.read_bytes("video.mp4"))
            return out
        return export_overlay(run, out, shown, overwrite=True)
    except (ExportError, RunError, OSError) as error:
        raise EngineError(for_visitors(error)) from None


def export_both(a: Run, b: Run, folder: Path, layout: PairLayout) -> Path:
    """Write two runs as one video into ``folder``; see :func:`prophy.runs.export.export_pair`.

    Raises:
        EngineError: they cannot be; one line.
    """
    try:
        return export_pair(a, b, Path(folder) / f"{a.id}-{layout}.mp4", layout, overwrite=True)
    except (ExportError, RunError) as error:
        raise EngineError(for_visitors(error)) from None


def exporter(engine: Engine) -> Callable[[object], dict[str, str]]:
    """What the page's scripts call as ``server.export_run``. Its argument comes from a browser and may be anything."""

    def export_run_for_browser(asked: object, visit: gr.Request | None = None) -> dict[str, str]:
        try:
            if not isinstance(asked, Mapping):
                raise EngineError("the request was malformed: reload the page")
            run = engine.runs.find(str(asked.get("run")))
            names = ("mode", "index", "step", "opacity", "region", "frame")
            given = {name: asked[name] for name in names if asked.get(name) is not None}
            what: Any = asked.get("what")

            def work() -> dict[str, str]:
                with tempfile.TemporaryDirectory() as folder:
                    if asked.get("beside") is None:
                        path = export_run(run, Path(folder), what, **given)
                    else:
                        beside = engine.runs.find(str(asked["beside"]))
                        path = export_both(run, beside, Path(folder), what)
                    data = base64.b64encode(path.read_bytes()).decode()
                return {"name": path.name, "type": _TYPES[path.suffix], "data": data}

            # gradio tells no session here: the address alone counts
            return engine.exports.do(visitor_of(visit).address, work)
        except (EngineError, OSError) as error:
            return {"error": for_visitors(error)}

    export_run_for_browser.__name__ = "export_run"
    return export_run_for_browser
