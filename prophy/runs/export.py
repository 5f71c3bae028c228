"""A run taken out of its directory: an mp4, a GIF or a picture with its routing or its recorded attention laid over it,
the trace, or a zip of it all; and two runs in one mp4.

Every function checks the run anew and writes the file whole or not at all: what stands at ``out`` afterwards is either
what stood there before or the finished file.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from prophy.files import replacing
from prophy.runs.layer import ExportError, Layer, OverlaySettings
from prophy.runs.legend import strip
from prophy.runs.pictures import resized, write_gif, write_png
from prophy.runs.store import Run, read_run
from prophy.video import write_video

PairLayout = Literal["side", "wipe"]
_PAIR_GAP, _DIVIDER = 8, 2  # pixels, between two pictures and of the line of a wipe
_GIF_WIDTH = 480  # pixels at most: a GIF is sent by mail and shown in pages
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold: the same run gives the same bytes


def export_overlay(
    run: Run, out: str | Path, settings: OverlaySettings, legend: bool = True, *, overwrite: bool = False
) -> Path:
    """Write the clip with its routing burnt in: an mp4 that browsers play, of the clip's size, frame count and rate.

    Args:
        run: the run; it must have routing.
        out: a name ending in ``.mp4`` in a folder that exists, outside the run.
        settings: what is laid over the frames.
        legend: add a strip beneath the picture with the prompt and the meaning of the colours.
        overwrite: replace an existing file.

    Returns:
        ``out``.

    Raises:
        ExportError: the run has no routing, or no such step or expert, or ``out`` will not do.
        prophy.runs.record.RunError: the run is damaged.
        RuntimeError: no video encoder worked.
        OSError: the disk refused.
    """
    out = _checked_out(run, out, ".mp4", overwrite)
    run = read_run(run.path)
    layer = Layer.of(run, settings, "overlay")
    frames, fps = run.clip()
    write_video(out, layer.over(frames, legend=legend), fps)
    return out


def export_gif(
    run: Run, out: str | Path, settings: OverlaySettings | None, legend: bool = True, *, overwrite: bool = False
) -> Path:
    """Write the clip as an animated GIF, at most 480 pixels wide, with its routing burnt in or alone.

    Args:
        run, legend, overwrite: see :func:`export_overlay`; a run without routing will do where nothing is laid over it.
        out: a name ending in ``.gif`` in a folder that exists, outside the run.
        settings: what is laid over the frames; None: nothing.

    Returns:
        ``out``.

    Raises:
        ExportError: see :func:`export_overlay`.
        prophy.runs.record.RunError: the run is damaged.
        OSError: the disk refused.
    """
    out = _checked_out(run, out, ".gif", overwrite)
    run = read_run(run.path)
    if settings is None:
        frames, fps = run.clip()
        frames = resized(frames, min(_GIF_WIDTH, frames.shape[2]))
    else:
        layer = Layer.of(run, settings, "gif")  # what cannot be is refused before the clip is decoded
        frames, fps = run.clip()
        # smaller first: the strip beneath is then drawn at its own size
        frames = layer.over(resized(frames, min(_GIF_WIDTH, frames.shape[2])), legend=legend)
    write_gif(out, frames, fps)
    return out


def export_still(
    run: Run,
    out: str | Path,
    settings: OverlaySettings | None,
    frame: int,
    legend: bool = True,
    *,
    overwrite: bool = False,
) -> Path:
    """Write one video frame as a PNG, with its routing laid over it or alone.

    Args:
        run, settings, legend, overwrite: see :func:`export_gif`.
        out: a name ending in ``.png`` in a folder that exists, outside the run.
        frame: its place in ``run.clip().frames``, the first is 0.

    Returns:
        ``out``.

    Raises:
        ExportError: see :func:`export_overlay`; also if the clip has no such frame.
        prophy.runs.record.RunError: the run is damaged.
        OSError: the disk refused.
    """
    out = _checked_out(run, out, ".png", overwrite)
    run = read_run(run.path)
    layer = None if settings is None else Layer.of(run, settings, "still")
    if frame not in range(frames := run.record.settings["frames"]):
        raise ExportError(f"frame={frame} lies outside the clip: use 0 to {frames - 1}")
    picture = run.clip().frames[frame]
    if layer is not None:
        picture = layer.tint.over_frame(picture, frame)
        if legend:
            picture = np.concatenate([picture, layer.legend(picture.shape[1])])
    write_png(out, picture)
    return out


def export_pair(
    a: Run, b: Run, out: str | Path, layout: PairLayout = "side", legend: bool = True, *, overwrite: bool = False
) -> Path:
    """Write two clips of one length, rate and size as one mp4, frame by frame.

    Args:
        a, b: the runs.
        out: a name ending in ``.mp4`` in a folder that exists, outside both runs.
        layout: ``side``: A on the left, B on the right; ``wipe``: one picture, A to the left of a line and B to its
            right, which goes over it and back while the clips play twice.
        legend: add a strip beneath the picture that says what each was made with.
        overwrite: replace an existing file.

    Returns:
        ``out``.

    Raises:
        ExportError: the clips do not fit, or ``out`` will not do.
        prophy.runs.record.RunError: a run is damaged.
        RuntimeError: no video encoder worked.
        OSError: the disk refused.
    """
    if layout not in get_args(PairLayout):
        raise ExportError(f"layout {layout!r:.40} is not one of {', '.join(get_args(PairLayout))}")
    out = _checked_out(a, _checked_out(b, out, ".mp4", overwrite), ".mp4", overwrite)
    a, b = read_run(a.path), read_run(b.path)
    (left, fps), (right, other_fps) = a.clip(), b.clip()
    if (left.shape, fps) != (right.shape, other_fps):
        sizes = [
            f"{f.shape[2]}×{f.shape[1]}, {len(f)} frames at {r:g} a second" for f, r in ((left, fps), (right, fps))
        ]
        raise ExportError(f"A has {sizes[0]} and B {sizes[1]}: give runs of one length, rate and size")
    frames = _side_by_side(left, right) if layout == "side" else _wiped(left, right)
    if legend:
        headings = [f"{side}: {run.record.prompt}{_made_with(run)}" for side, run in (("A", a), ("B", b))]
        beneath = strip([], frames.shape[2], headings=headings, text_px=max(9, round(0.57 * frames.shape[2] ** 0.5)))
        frames = np.concatenate([frames, np.broadcast_to(beneath, (len(frames), *beneath.shape))], axis=1)
    write_video(out, frames, fps)
    return out


def _side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    gap = np.full((*left.shape[:2], _PAIR_GAP, 3), 255, np.uint8)
    return np.concatenate([left, gap, right], axis=2)


def _wiped(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Twice the clips, the line from the right edge to the left one and back."""
    width, count = left.shape[2], 2 * len(left)
    shown = np.concatenate([right, right])
    for i, picture in enumerate(np.concatenate([left, left])):
        line = round(width * abs(1 - 2 * i / max(1, count - 1)))
        shown[i, :, :line] = picture[:, :line]
        shown[i, :, max(0, line - _DIVIDER) : line] = 255
    return shown


def _made_with(run: Run) -> str:
    said = ["no branch"] if run.routing_path is None else run.record.steering.describe()
    return f" ({', '.join(said)})" if said else ""


def export_trace(run: Run, out: str | Path, *, overwrite: bool = False) -> Path:
    """Copy the routing, byte by byte, after it was checked; :meth:`prophy.routing.trace.RoutingTrace.load` reads it.

    Args:
        run, overwrite: see :func:`export_overlay`.
        out: a name ending in ``.npz`` in a folder that exists, outside the run.

    Returns:
        ``out``.

    Raises:
        ExportError: the run has no routing, or ``out`` will not do.
        prophy.runs.record.RunError: the run is damaged.
        OSError: the disk refused.
    """
    out = _checked_out(run, out, ".npz", overwrite)
    run = read_run(run.path)
    if run.trace() is None:
        raise ExportError(f"run {run.id} was made without a branch, so there is no routing for the trace: try a zip")
    with replacing(out, shared=True) as temporary:
        temporary.write_bytes(run.read_bytes("routing.npz"))
    return out


def export_zip(run: Run, out: str | Path, *, overwrite: bool = False) -> Path:
    """Pack the run, in a folder of its id: run.json and the files it names, nothing else that may lie beside them.

    The same run always gives the same bytes. Unpacked, the folder is a run again: :func:`prophy.runs.store.read_run`.

    Args:
        run, overwrite: see :func:`export_overlay`; a run without routing will do.
        out: a name ending in ``.zip`` in a folder that exists, outside the run.

    Returns:
        ``out``.

    Raises:
        ExportError: ``out`` will not do.
        prophy.runs.record.RunError: the run is damaged.
        OSError: the disk refused.
    """
    out = _checked_out(run, out, ".zip", overwrite)
    run = read_run(run.path)
    with replacing(out, shared=True) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in ("run.json", *sorted(run.files)):
            item = zipfile.ZipInfo(f"{run.id}/{name}", _ZIP_TIME)
            # Stored: the files are compressed already, and another zlib would give other bytes.
            item.compress_type, item.create_system, item.external_attr = zipfile.ZIP_STORED, 3, 0o644 << 16
            archive.writestr(item, run.read_bytes(name))
    return out


def _checked_out(run: Run, out: str | Path, suffix: str, overwrite: bool) -> Path:
    """Where to write, before any work is done for it."""
    out = Path(out)
    if out.suffix != suffix:
        raise ExportError(f"{out.name} must end in {suffix}")
    if not out.parent.is_dir():
        raise ExportError(f"there is no folder {out.parent}: make it first")
    if out.parent.resolve().is_relative_to(run.path.resolve()):
        raise ExportError(f"{out} lies inside the run: choose another folder")
    if out.is_dir():
        raise ExportError(f"{out} is a folder: choose another name")
    if not overwrite and os.path.lexists(out):
        raise ExportError(f"{out} already exists: choose another name, or overwrite it")
    return out
