"""A run taken out of its directory: an mp4, a GIF or a picture with the routing laid over it, the trace, or a zip of it
all; and two runs in one mp4.

Every function checks the run anew and writes the file whole or not at all: what stands at ``out`` afterwards is either
what stood there before or the finished file.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from prophy import phenomena
from prophy.files import replacing
from prophy.routing.steering import MAX_EXPERTS
from prophy.routing.trace import RoutingTrace
from prophy.runs.legend import strip
from prophy.runs.overlay import MODES, OverlayMode, legend_entries, overlay, overlay_frame
from prophy.runs.pictures import resized, write_gif, write_png
from prophy.runs.store import Run, read_run
from prophy.video import write_video

_CAPTIONS = {
    "phenomena": "The strongest phenomenon of each token, the fuller the larger its value",
    "top1": "The strongest expert of each token",
    "expert": "The fuller the colour, the larger the expert's weight",
    "phenomenon": "Where the branch's map places the phenomenon",
    "entropy": "How evenly the experts share a token",
    "margin": "Lead of a token's strongest expert over its second",
}
PairLayout = Literal["side", "wipe"]
_PAIR_GAP, _DIVIDER = 8, 2  # pixels, between two pictures and of the line of a wipe
_GIF_WIDTH = 480  # pixels at most: a GIF is sent by mail and shown in pages
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold: the same run gives the same bytes


class ExportError(ValueError):
    """What was asked for cannot be exported. The message is one line, for the person who asked."""


@dataclass(frozen=True)
class OverlaySettings:
    """What is laid over the frames.

    Attributes:
        mode: one of :data:`prophy.runs.overlay.MODES`.
        index: the expert, or the phenomenon's place in :data:`prophy.phenomena.PHENOMENA`; for these two modes only.
        step: a denoising step by its number, from 1; None is the last. Entropy is over all steps and ignores it.
        opacity: 0 (frames only) to 1; None: :func:`prophy.runs.overlay.default_opacity` of the mode.

    Raises:
        ExportError: a value that no run could have.
    """

    mode: OverlayMode = "phenomena"
    index: int | None = None
    step: int | None = None
    opacity: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ExportError(f"mode {self.mode!r} is not one of {', '.join(MODES)}")
        if self.mode == "phenomenon" and self.index not in range(len(phenomena.PHENOMENA)):
            raise ExportError(f"index={self.index} is not a phenomenon: use 0 to {len(phenomena.PHENOMENA) - 1}")
        if self.mode == "expert" and (type(self.index) is not int or not 0 <= self.index < MAX_EXPERTS):
            raise ExportError(f"index={self.index} is not an expert: use 0 to {MAX_EXPERTS - 1}")
        if self.mode not in ("expert", "phenomenon") and self.index is not None:
            shown = "phenomenon" if self.mode == "phenomena" else "expert"
            raise ExportError(f"mode {self.mode} shows every {shown}: leave index={self.index} out")
        if self.step is not None and (type(self.step) is not int or not 1 <= self.step <= 1000):
            raise ExportError(f"step={self.step} is not a denoising step: they are numbered from 1")
        if self.opacity is not None and (type(self.opacity) not in (int, float) or not 0 <= self.opacity <= 1):
            raise ExportError(f"opacity={self.opacity} must be from 0 to 1")

    def kept_step(self, trace: RoutingTrace) -> int:
        """Where a trace keeps the step: its place along D.

        Raises:
            ExportError: the trace has no such step, or no such expert.
        """
        if self.mode == "expert" and self.index is not None and self.index >= trace.num_experts:
            raise ExportError(f"the run has no expert {self.index}: use 0 to {trace.num_experts - 1}")
        numbers = trace.step_numbers
        if self.step is None or self.step in numbers:
            return len(numbers) - 1 if self.step is None else numbers.index(self.step)
        if self.step > trace.steps:
            raise ExportError(f"the run has no denoising step {self.step}: use 1 to {trace.steps}")
        before, after = max(n for n in numbers if n < self.step), min(n for n in numbers if n > self.step)
        raise ExportError(
            f"step {self.step} was not kept, only {len(numbers)} of {trace.steps} were: use {before} or {after}"
        )


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
    run, trace = _checked(run, "overlay")
    frames, fps = run.clip()
    write_video(out, _overlaid(frames, trace, settings, legend), fps)
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
    if settings is None:
        frames, fps = read_run(run.path).clip()
        frames = resized(frames, min(_GIF_WIDTH, frames.shape[2]))
    else:
        run, trace = _checked(run, "gif")
        settings.kept_step(trace)  # refused before the clip is decoded
        frames, fps = run.clip()
        # smaller first: the strip beneath is then drawn at its own size
        frames = _overlaid(resized(frames, min(_GIF_WIDTH, frames.shape[2])), trace, settings, legend)
    write_gif(out, frames, fps)
    return out


def export_still(
    run: Run, out: str | Path, settings: OverlaySettings, frame: int, legend: bool = True, *, overwrite: bool = False
) -> Path:
    """Write one video frame with its routing laid over it, as a PNG.

    Args:
        run, settings, legend, overwrite: see :func:`export_overlay`.
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
    run, trace = _checked(run, "still")
    step = settings.kept_step(trace)
    if frame not in range(trace.grid.num_video_frames):
        raise ExportError(f"frame={frame} lies outside the clip: use 0 to {trace.grid.num_video_frames - 1}")
    picture = overlay_frame(
        run.clip().frames[frame],
        trace,
        frame,
        settings.mode,
        index=settings.index,
        step=step,
        opacity=settings.opacity,
    )
    if legend:
        picture = np.concatenate([picture, _legend(trace, settings, step, picture.shape[1])])
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


def _overlaid(frames: np.ndarray, trace: RoutingTrace, settings: OverlaySettings, legend: bool) -> np.ndarray:
    step = settings.kept_step(trace)
    frames = overlay(frames, trace, settings.mode, index=settings.index, step=step, opacity=settings.opacity)
    if not legend:
        return frames
    beneath = _legend(trace, settings, step, frames.shape[2])
    return np.concatenate([frames, np.broadcast_to(beneath, (len(frames), *beneath.shape))], axis=1)


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
    run, _ = _checked(run, "trace")
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


def _checked(run: Run, what: str) -> tuple[Run, RoutingTrace]:
    """The run as it is on disk now, hashes included: a listing may have skipped them."""
    run = read_run(run.path)
    trace = run.trace()
    if trace is None:
        raise ExportError(f"run {run.id} was made without a branch, so there is no routing for the {what}: try a zip")
    return run, trace


def _legend(trace: RoutingTrace, settings: OverlaySettings, step: int, width: int) -> np.ndarray:
    entries = legend_entries(trace, settings.mode, index=settings.index, step=step)
    when = "over all denoising steps"
    if settings.mode != "entropy":
        when = f"denoising step {trace.step_numbers[step]} of {trace.steps}"
    headings = (trace.prompt, f"{_CAPTIONS[settings.mode]}, {when}")
    return strip(entries, width, headings=headings, text_px=max(9, round(0.57 * width**0.5)))
