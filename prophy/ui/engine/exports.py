"""Files of a run for a visitor to keep: the overlay as a video or a GIF, a still, the trace, a zip; two runs in one.

Every function is called in a process of :class:`prophy.ui.engine.aside.Aside`: runs come as their folders (no gradio,
no torch).
"""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any, Literal, cast, get_args

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
from prophy.runs.store import read_run
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
_FAULTS = (ExportError, RunError, OSError, RuntimeError)  # the last: no video encoder works


def export_run(
    path: Path,
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
    """Write one file of the run at ``path`` into ``folder``; see :mod:`prophy.runs.export` for the arguments. With an
    opacity of 0 it is the clip alone, without a legend of what is not there.

    Raises:
        EngineError: it cannot be; one line.
    """
    if what not in get_args(What):
        raise EngineError(f"{str(what)[:40]!r} cannot be exported: choose {', '.join(get_args(What))}")
    try:
        run = read_run(path)
        out = folder / f"{run.id}-{what}{_SUFFIXES[what]}"
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
    except _FAULTS as error:
        raise EngineError(for_visitors(error)) from None


def export_both(a: Path, b: Path, folder: Path, layout: PairLayout) -> Path:
    """Write the runs at ``a`` and ``b`` as one video into ``folder``; see :func:`prophy.runs.export.export_pair`.

    Raises:
        EngineError: they cannot be; one line.
    """
    try:
        first, second = read_run(a), read_run(b)
        return export_pair(first, second, folder / f"{first.id}-{layout}.mp4", layout, overwrite=True)
    except _FAULTS as error:
        raise EngineError(for_visitors(error)) from None


def export_for_browser(
    path: Path, beside: Path | None, folder: Path, what: Any, given: dict[str, Any]
) -> dict[str, str]:
    """A file as the page's scripts take it: its name, its type, and its bytes in base 64.

    Args:
        path: of the run.
        beside: of the run that is to be in the same file; None: none is.
        folder: where it is made; whoever has it sweeps what is left there if this process is killed meanwhile.
        what: of :func:`export_run`, or the layout of :func:`export_both`.
        given: further arguments of the former.

    Raises:
        EngineError: it cannot be; one line.
        OSError: the disk refused.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        own = Path(name)
        out = export_run(path, own, what, **given) if beside is None else export_both(path, beside, own, what)
        return {"name": out.name, "type": _TYPES[out.suffix], "data": base64.b64encode(out.read_bytes()).decode()}
