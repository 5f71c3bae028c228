"""The routing view: a video with its routing laid over it in the browser.

The routing travels as bytes, for every kept denoising step: top-k ids, their weights and the phenomenon maps; and the
entropy over all of them. So choosing a mode, an expert, a phenomenon, a step, an opacity, a token or a region asks the
server nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import gradio as gr
import numpy as np

from prophy import phenomena
from prophy.catalogue.experts import ExpertShares
from prophy.grid import TEMPORAL
from prophy.routing.attention import AttentionTrace
from prophy.routing.trace import RoutingTrace
from prophy.runs.overlay import expert_colour
from prophy.runs.store import Run
from prophy.ui.views.component import component

MAX_ROUTING_BYTES = 8 * 2**20  #: of routing sent to a browser; of a larger trace, evenly spaced steps
MAX_ATTENTION_BYTES = 4 * 2**20  #: of words' maps; likewise


@dataclass(frozen=True)
class AttentionBytes:
    """Recorded attention as the browser reads it: D kept steps, N tokens, W words, C cells.

    Attributes:
        words: of the prompt.
        steps: the number, from 1, of each step sent.
        maps: base64 of uint8 (D, W, N), 255 is the word's peak.
        peaks: of the words, shares of a token's attention.
        side: tokens on a side of a cell.
        cells: latent frames, rows, columns of the cells.
        cell_maps: base64 of uint8 (C, C), from each cell to each, 255 is the row's peak.
        cell_peaks: of the rows.
    """

    words: list[str]
    steps: list[int]
    maps: str
    peaks: list[float]
    side: int
    cells: tuple[int, int, int]
    cell_maps: str
    cell_peaks: list[float]

    @classmethod
    def of(cls, attention: AttentionTrace) -> AttentionBytes:
        """Of one too large for a browser, evenly spaced steps and always the last."""
        count = len(attention.steps)
        most = int(np.clip(MAX_ATTENTION_BYTES // attention.word_maps[0].size, 1, count))
        kept = np.unique(np.linspace(count - 1, 0, most).round().astype(int))
        return cls(
            words=list(attention.words),
            steps=attention.steps[kept].tolist(),
            maps=base64_of(attention.word_maps[kept].transpose(0, 2, 1)),
            peaks=[round(float(peak), 6) for peak in attention.word_peaks],
            side=attention.cell_side,
            cells=attention.cells.shape,
            cell_maps=base64_of(attention.cell_maps),
            cell_peaks=[round(float(peak), 6) for peak in attention.cell_peaks],
        )


@dataclass(frozen=True)
class RoutingBytes:
    """A trace as the browser reads it: D kept steps, N tokens, K experts a token, P phenomena, E experts.

    Attributes:
        grid: latent frames, token rows, token columns.
        temporal: video frames in a latent frame after the first.
        steps: the number, from 1, of each step sent.
        total_steps: denoising steps the generation took.
        top_k: K.
        ids: base64 of uint8 (D, N, K), best first.
        weights: base64 of uint8 (D, N, K), 255 is 1.
        maps: base64 of uint8 (D, P, N), 255 is 1.
        entropy: base64 of uint8 (N,), 255 is 1: of each token's mean distribution over experts, over all steps.
        semantic: the semantic experts' weights.
        experts: colours by expert.
        phenomena: name and colour by phenomenon.
        names: what each expert was measured to do, "melting 71 %"; empty where nothing dominates or nobody measured.
        offered: places of the phenomena to choose from: those that the branch was taught, as far as that is known.
        attention: what the backbone attended to; None where that was not recorded.
    """

    grid: tuple[int, int, int]
    temporal: int
    steps: list[int]
    total_steps: int
    top_k: int
    ids: str
    weights: str
    maps: str
    entropy: str
    semantic: list[float]
    experts: list[str]
    phenomena: list[tuple[str, str]]
    names: list[str]
    offered: list[int]
    attention: AttentionBytes | None = None

    @classmethod
    def of(
        cls, trace: RoutingTrace, measured: ExpertShares | None = None, attention: AttentionTrace | None = None
    ) -> RoutingBytes:
        """Quantise a trace; of one too large for a browser, keep evenly spaced steps and always the last.

        Args:
            trace: the routing.
            measured: what its experts were measured to do.
            attention: of the same generation.
        """
        if measured is not None and len(measured.names) != trace.num_experts:  # another branch's
            measured = None
        bytes_a_step = trace.topk_ids[0].size * 2 + trace.phenomenon_maps[0].size
        most = int(np.clip(MAX_ROUTING_BYTES // bytes_a_step, 1, trace.num_kept))
        kept = np.unique(np.linspace(trace.num_kept - 1, 0, most).round().astype(int))
        return cls(
            grid=trace.grid.shape,
            temporal=TEMPORAL,
            steps=[trace.step_numbers[d] for d in kept],
            total_steps=trace.steps,
            top_k=trace.topk_ids.shape[2],
            ids=base64_of(trace.topk_ids[kept]),
            weights=base64_of(_quantised(trace.topk_weights[kept])),
            maps=base64_of(_quantised(trace.phenomenon_maps[kept]).transpose(0, 2, 1)),
            entropy=base64_of(_quantised(trace.entropy())),
            semantic=[round(float(weight), 5) for weight in trace.semantic_weights],
            experts=[expert_colour(e) for e in range(trace.num_experts)],
            phenomena=[(phenomenon.name, phenomenon.colour) for phenomenon in phenomena.PHENOMENA],
            names=list(measured.names) if measured is not None else [""] * trace.num_experts,
            offered=[one.index for one in phenomena.PHENOMENA if measured is None or one.id in measured.learnt],
            attention=None if attention is None else AttentionBytes.of(attention),
        )

    @classmethod
    def of_attention(cls, attention: AttentionTrace) -> RoutingBytes:
        """What was recorded of a clip that was made without a branch: no experts, no phenomena."""
        sent = AttentionBytes.of(attention)
        return cls(
            grid=attention.grid.shape,
            temporal=TEMPORAL,
            steps=sent.steps,
            total_steps=attention.total_steps,
            top_k=0,
            ids="",
            weights="",
            maps="",
            entropy="",
            semantic=[],
            experts=[],
            phenomena=[],
            names=[],
            offered=[],
            attention=sent,
        )


@dataclass(frozen=True)
class RunView:
    """What the routing view shows.

    Attributes:
        id: of the run.
        prompt: as typed.
        facts: short texts for the line below it.
        unknown_words: words of the prompt that the model has never seen.
        video: base64 of the mp4 file.
        frames: video frames.
        fps: frames a second.
        aspect: width over height.
        routing: None for a run made without a branch, unless what its backbone attended to was recorded.
        by_link: the answer to the page's address, which says what is laid over the run: the view reads it. Until the
            answer comes such a page shows nothing, and it would not notice a value equal to the one it was built with.
    """

    id: str
    prompt: str
    facts: list[str]
    unknown_words: list[str]
    video: str
    frames: int
    fps: float
    aspect: float
    routing: RoutingBytes | None
    by_link: bool = False

    @classmethod
    def of(
        cls,
        run: Run,
        trace: RoutingTrace | None,
        *,
        measured: ExpertShares | None = None,
        by_link: bool = False,
        attention: AttentionTrace | None = None,
    ) -> RunView:
        """Read a run's video and put its routing beside it.

        Args:
            run: the run.
            trace: its own, from :meth:`prophy.runs.store.Run.trace`.
            measured: what the experts of its model were measured to do.
            by_link: see above.
            attention: its own, from :meth:`prophy.runs.store.Run.attention`.

        Raises:
            OSError: its video cannot be read.
        """
        record, settings = run.record, run.record.settings
        facts = [f"seed {record.seed}", f"{settings['steps']} steps", f"guidance {settings['guidance']:g}"]
        if record.timings:
            facts.append(f"made in {sum(record.timings.values()):.1f} s")
        scheduled = [] if record.schedule.is_every_pass else [f"branch {record.schedule.describe()}"]
        if not record.steering.is_neutral:
            scheduled.append(f"steered: {_shortened(record.steering.describe())}")
        if trace is not None and measured is not None and not measured.is_of(record.model_sha256):
            scheduled.append("made with other weights, or in another precision, than its experts were named for")
            measured = None
        routing = None
        if trace is not None:
            routing = RoutingBytes.of(trace, measured, attention)
        elif attention is not None:
            routing = RoutingBytes.of_attention(attention)
        return cls(
            id=run.id,
            prompt=record.prompt,
            facts=[*facts, *scheduled, record.model_id],
            unknown_words=list(record.unknown_words),
            video=base64.b64encode(run.video_path.read_bytes()).decode(),
            frames=settings["frames"],
            fps=settings["fps"],
            aspect=settings["width"] / settings["height"],
            routing=routing,
            by_link=by_link,
        )

    def as_json(self) -> dict:
        """The component's value."""
        return asdict(self)


def routing_view(
    export_run: Callable[[object], dict[str, str]] | None, value: dict | None = None, *, elem_id: str | None = None
) -> gr.HTML:
    """The component. Its value is :meth:`RunView.as_json`, or None for an invitation to make one.

    The value it is built with is not shown on a page whose link names a run: that one follows.

    Its events ``steer`` and ``revisit`` carry ``{"id": run id}``: to steer this run; to show the one that the visitor's
    browser went back to.

    Args:
        export_run: gives a visitor a file of the run; see :func:`prophy.ui.files.exporter`. None: there are no
            files.
        value: what it opens with.
        elem_id: in the page; by default ``routing-view``.
    """
    scripts = ("routing.js", "parts.js", "stacked_bars.js", "download.js", "routing_view.js")
    functions = [] if export_run is None else [export_run]
    return component("routing_view", scripts, value, elem_id=elem_id, server_functions=functions)


def _shortened(lines: Sequence[str], most: int = 4) -> str:
    rest = len(lines) - most
    return ", ".join([*lines[:most], *([f"and {rest} more"] if rest > 0 else [])])


def _quantised(values: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(values.astype(np.float32), 0, 1)).astype(np.uint8)


def base64_of(array: np.ndarray) -> str:
    """The bytes of a uint8 array, as text."""
    return base64.b64encode(array.astype(np.uint8).tobytes()).decode()
