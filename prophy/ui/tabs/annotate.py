"""Annotate: what a vision-language model says about a clip, where it looks meanwhile, and the targets of that."""

from __future__ import annotations

import base64
import html
import tempfile
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from prophy import phenomena
from prophy.annotation import maps
from prophy.annotation.record import Annotation, Answer
from prophy.assets import assets_dir
from prophy.files import visible
from prophy.grid import TEMPORAL, TokenGrid
from prophy.schema import read_object
from prophy.ui.controls import messages
from prophy.ui.controls.visit import visitor_of
from prophy.ui.engine.slots import Slots
from prophy.ui.views.routing import RoutingBytes, RunView, base64_of, routing_view
from prophy.video import UnreadableClip, picture_size, sample_frames, write_video

if TYPE_CHECKING:
    from prophy.annotation.annotator import Annotator

_BACKGROUND, _LESS = "#777777", "#0072b2"
_RATE, _LENGTHS = 8.0, (33, 17, 9, 5)  # frames a second, and how many of an uploaded clip, the most there are
_SIDE, _TOKEN = 416, 16  # pixels: of an uploaded clip at most, and of the tokens its targets are for
_HOW = """
<p>These clips were annotated when the app was made. To annotate your own, give the app a vision-language model:</p>
<p><code>prophy app --vlm Qwen/Qwen2.5-VL-7B-Instruct</code></p>
<p>or annotate a whole folder: <code>prophy annotate --data folder --path DIR --vlm …</code></p>
"""


def view_of(annotation: Annotation, video: bytes, caption: str, clip_id: str, aspect: float) -> RunView:
    """An annotation for the routing view: in place of a branch's maps, for each phenomenon the target, where the answer
    looks, and where it looks less than the brief description does; and where the brief description looks.

    Args:
        annotation: of the clip.
        video: the mp4 file.
        caption: shown above it.
        clip_id: tells it from others.
        aspect: width over height.
    """
    record, targets = annotation.record, annotation.targets
    entries: list[tuple[str, str]] = []
    drawn: list[np.ndarray] = []
    background = _on_grid(annotation, annotation.background)
    looked = {name: _on_grid(annotation, answer) for name, answer in annotation.answers.items()}
    brightest = max(values.max() for values in (background, *looked.values())) or 1
    for name, values in looked.items():
        phenomenon = phenomena.by_id(name)
        difference = targets.values[:, phenomenon.index]
        peak = np.abs(difference).max() or 1
        entries += [
            (f"{phenomenon.name}: target", phenomenon.colour),
            (f"{phenomenon.name}: its answer", phenomenon.colour),
            (f"{phenomenon.name}: less than briefly", _LESS),
        ]
        drawn += [difference / peak, values / brightest, -difference / peak]
    entries.append(("brief description", _BACKGROUND))
    drawn.append(background / brightest)
    stacked = np.round(255 * np.clip(np.stack(drawn), 0, 1)).astype(np.uint8)
    routing = RoutingBytes(
        grid=targets.grid.shape,
        temporal=TEMPORAL,
        steps=[1],
        total_steps=1,
        top_k=0,
        ids="",
        weights="",
        maps=base64_of(stacked),
        entropy="",
        semantic=[],
        experts=[],
        phenomena=entries,
        names=[],
        offered=list(range(len(entries))),
    )
    return RunView(
        id=clip_id,
        prompt=caption,
        facts=[record.model, record.family, f"{len(record.frame_indices)} of {record.num_frames} frames seen"],
        unknown_words=[],
        video=base64.b64encode(video).decode(),
        frames=record.num_frames,
        fps=record.fps,
        aspect=aspect,
        routing=routing,
    )


def _on_grid(annotation: Annotation, answer: Answer) -> np.ndarray:
    """Attention as shares of its sum, on the targets' grid."""
    record = annotation.record
    total = answer.attention.sum()
    centres = np.array(record.frame_indices, float).reshape(len(answer.attention), -1).mean(1)
    share = answer.attention / total if total > 0 else answer.attention
    return maps.resample(share, centres, record.num_frames, annotation.targets.grid)


def answers_html(annotation: Annotation) -> str:
    """Questions and answers; the model's words are shown as text, whatever they are."""
    rows = [annotation.background, *annotation.answers.values()]
    said = "".join(
        f"<dt>{html.escape(one.question)}</dt><dd>{html.escape(one.text) or '(nothing)'}</dd>" for one in rows
    )
    return f'<dl class="pp-answers">{said}</dl>'


def shipped(folder: Path | None = None) -> dict[str, Path]:
    """Annotated clips that came with the code: caption -> folder; those whose description is damaged are left out.

    Args:
        folder: of the clips; None for the code's own.
    """
    found = {}
    for clip in visible(assets_dir() / "annotated" if folder is None else folder):
        try:
            caption = read_object(clip / "clip.json", "annotate the clip again").get("caption")
        except (OSError, ValueError):
            continue
        if isinstance(caption, str):
            found[caption] = clip
    return found


class AnnotateTab:
    """The tab's parts, built where this is called, inside the page.

    Args:
        vlm: repository or folder of a vision-language model, opened at the first clip; None: shipped clips only.
    """

    def __init__(self, vlm: str | None = None) -> None:
        self._vlm, self._lock = vlm, Lock()
        self._slots = Slots("annotations", running=1, waiting=8, each=2)
        self._annotator: Annotator | None = None
        self._shipped = shipped()
        captions = list(self._shipped)
        first = captions[0] if captions else None
        opened = self._on_shipped(first)
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        with gr.Row(elem_classes="pp-columns", equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_classes="pp-ask"):
                chosen = gr.Radio(
                    captions, value=first, label="Annotated clips", elem_id="annotate-shipped", visible=bool(captions)
                )
                if vlm is None:
                    gr.HTML(_HOW, elem_id="annotate-how")
                else:
                    file = gr.File(label="A clip of your own", file_types=["video"], elem_id="annotate-file")
                    named = [(phenomenon.name, phenomenon.id) for phenomenon in phenomena.PHENOMENA]
                    asked = gr.CheckboxGroup(named, label="What happens in it", elem_id="annotate-phenomena")
                    start = gr.Button("Annotate", variant="primary", elem_id="annotate")
                notice = gr.HTML(
                    opened[2], elem_id="annotate-notice", elem_classes="pp-notices", apply_default_css=False
                )
            with gr.Column(scale=9, min_width=320):
                view = routing_view(None, opened[0], elem_id="annotation-view")
                said = gr.HTML(opened[1], elem_id="annotate-answers", apply_default_css=False)
        outputs = [view, said, notice]
        chosen.change(self._on_shipped, chosen, outputs, queue=False, **quiet)
        if vlm is not None:
            # Gradio's own limit would let one visitor's clips wait before everybody else's.
            start.click(self._on_annotate, [file, asked], outputs, concurrency_limit=None, **quiet)

    def _on_shipped(self, caption: str | None) -> tuple[dict | None, str, str]:
        folder = None if caption is None else self._shipped.get(caption)
        if caption is None or folder is None:
            return None, "", ""
        try:
            annotation = Annotation.load(folder)
            video = (folder / "clip.mp4").read_bytes()
            height, width = picture_size(folder / "clip.mp4")
        except (OSError, ValueError) as error:
            return None, "", messages.error(error)
        return view_of(annotation, video, caption, folder.name, width / height).as_json(), answers_html(annotation), ""

    def _on_annotate(self, file: str | None, asked: list[str], visit: gr.Request) -> tuple[dict | None, str, str]:
        try:
            with self._slots.taken(visitor_of(visit).name):
                return self._annotated(file, asked)
        except (ValueError, KeyError, OSError) as error:
            return None, "", messages.error(error)

    def _annotated(self, file: str | None, asked: list[str]) -> tuple[dict | None, str, str]:
        if file is None:
            raise ValueError("there is no clip: choose a file")
        if not asked:
            raise ValueError("tick at least one phenomenon that the clip shows")
        frames = _read(Path(file))
        count, height, width, _ = frames.shape
        grid = TokenGrid.from_video(count, height, width, _TOKEN)
        annotation = self._open().annotate(frames, _RATE, asked, grid)
        with tempfile.TemporaryDirectory() as folder:
            write_video(Path(folder) / "clip.mp4", frames, _RATE)
            video = (Path(folder) / "clip.mp4").read_bytes()
        view = view_of(annotation, video, Path(file).name, Path(file).name, width / height)
        return view.as_json(), answers_html(annotation), ""

    def _open(self) -> Annotator:
        """The annotator, opened once."""
        from prophy.annotation.annotator import Annotator
        from prophy.annotation.config import read_config

        with self._lock:
            if self._vlm is None:
                raise ValueError("there is no vision-language model: start the app with --vlm")
            if self._annotator is None:
                self._annotator = Annotator.from_pretrained(self._vlm, read_config(self._vlm))
            return self._annotator


def _read(path: Path) -> np.ndarray:
    """The first seconds of a visitor's clip, at a size whose sides are whole tokens.

    Raises:
        UnreadableClip: it cannot be read, or has fewer than five frames' time; named without its folder.
    """
    try:
        height, width = picture_size(path)
        scale = min(1.0, _SIDE / max(height, width))
        height, width = (max(_TOKEN, round(side * scale / _TOKEN) * _TOKEN) for side in (height, width))
        frames = sample_frames(path, _LENGTHS[0], _RATE, height, width, fewest=_LENGTHS[-1])
    except UnreadableClip as error:
        raise UnreadableClip(Path(path.name), error.reason) from error
    return frames[: next(length for length in _LENGTHS if length <= len(frames))]
