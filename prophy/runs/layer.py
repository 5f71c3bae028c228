"""What is laid over a clip that is taken out of its run: a view of the routing, or of what the backbone attended to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from prophy import phenomena
from prophy.grid import MAX_SIDE
from prophy.routing.attention import MAX_WORDS, AttentionTrace
from prophy.routing.steering import MAX_EXPERTS
from prophy.routing.trace import RoutingTrace
from prophy.runs.legend import Entry, strip
from prophy.runs.overlay import MODES, OverlayMode, Tint, legend_entries, level_entry, level_tint, routing_tint
from prophy.runs.store import Run

ShownMode = OverlayMode | Literal["words", "looks"]
SHOWN_MODES: tuple[str, ...] = (*MODES, "words", "looks")  #: what an export shows
_INDEXED = ("expert", "phenomenon", "words")
_CAPTIONS = {
    "phenomena": "The strongest phenomenon of each token, the fuller the larger its value",
    "top1": "The strongest expert of each token",
    "expert": "The fuller the colour, the larger the expert's weight",
    "phenomenon": "Where the branch's map places the phenomenon",
    "entropy": "How evenly the experts share a token",
    "margin": "Lead of a token's strongest expert over its second",
}


class ExportError(ValueError):
    """What was asked for cannot be exported. The message is one line, for the person who asked."""


@dataclass(frozen=True)
class OverlaySettings:
    """What is laid over the frames.

    Attributes:
        mode: one of :data:`SHOWN_MODES`: those of :data:`prophy.runs.overlay.MODES`; ``words``: how much each token
            attends to a word of the prompt; ``looks``: where the tokens of a region look.
        index: the expert, the phenomenon's place in :data:`prophy.phenomena.PHENOMENA`, or the word's in the prompt;
            for these three modes only.
        step: a denoising step by its number, from 1; None is the last that was kept. Entropy and ``looks`` are over all
            steps and ignore it.
        opacity: 0 (frames only) to 1; None: :func:`prophy.runs.overlay.default_opacity` of the mode.
        region: for ``looks``: latent frame, first and last row, first and last column.

    Raises:
        ExportError: a value that no run could have.
    """

    mode: ShownMode = "phenomena"
    index: int | None = None
    step: int | None = None
    opacity: float | None = None
    region: tuple[int, int, int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.mode not in SHOWN_MODES:
            raise ExportError(f"mode {self.mode!r} is not one of {', '.join(SHOWN_MODES)}")
        if self.mode == "phenomenon" and self.index not in range(len(phenomena.PHENOMENA)):
            raise ExportError(f"index={self.index} is not a phenomenon: use 0 to {len(phenomena.PHENOMENA) - 1}")
        if self.mode == "expert" and (type(self.index) is not int or not 0 <= self.index < MAX_EXPERTS):
            raise ExportError(f"index={self.index} is not an expert: use 0 to {MAX_EXPERTS - 1}")
        if self.mode == "words" and (type(self.index) is not int or not 0 <= self.index < MAX_WORDS):
            raise ExportError(f"index={self.index} is not a word: use 0 to {MAX_WORDS - 1}")
        if self.mode not in _INDEXED and self.index is not None:
            shown = {"phenomena": "phenomenon", "looks": "place"}.get(self.mode, "expert")
            raise ExportError(f"mode {self.mode} shows every {shown}: leave index={self.index} out")
        if self.step is not None and (type(self.step) is not int or not 1 <= self.step <= 1000):
            raise ExportError(f"step={self.step} is not a denoising step: they are numbered from 1")
        if self.opacity is not None and (type(self.opacity) not in (int, float) or not 0 <= self.opacity <= 1):
            raise ExportError(f"opacity={self.opacity} must be from 0 to 1")
        if (self.mode == "looks") != (self.region is not None):
            raise ExportError("a region says whose attention is shown: give one in the mode looks, and in no other")
        if self.region is not None and not _is_region(self.region):
            raise ExportError("a region is a latent frame, its first and last row, and its first and last column")

    def kept_step(self, trace: RoutingTrace) -> int:
        """Where a trace keeps the step: its place along D.

        Raises:
            ExportError: the trace has no such step, or no such expert.
        """
        if self.mode == "expert" and self.index is not None and self.index >= trace.num_experts:
            raise ExportError(f"the run has no expert {self.index}: use 0 to {trace.num_experts - 1}")
        return _place(self.step, trace.step_numbers, trace.steps)

    def recorded_step(self, attention: AttentionTrace) -> int:
        """Where recorded attention keeps the step: its place along D.

        Raises:
            ExportError: it has no such step, no such word, or its grid no such region.
        """
        if self.mode == "words" and self.index is not None and self.index >= len(attention.words):
            raise ExportError(f"the prompt has no word {self.index}: use 0 to {len(attention.words) - 1}")
        frames, height, width = attention.grid.shape
        if self.region is not None:
            latent, _, row, _, column = self.region
            if latent >= frames or row >= height or column >= width:
                raise ExportError(f"the region lies outside the grid of {frames}×{height}×{width} tokens")
        return _place(self.step, attention.steps.tolist(), attention.total_steps)


@dataclass(frozen=True)
class Layer:
    """Settings as one run has them, ready to be laid over its frames.

    Attributes:
        tint: over the frames.
        headings: of the legend: the prompt, and what the colours are.
        entries: of the legend.
    """

    tint: Tint
    headings: tuple[str, str]
    entries: list[Entry]

    @classmethod
    def of(cls, run: Run, settings: OverlaySettings, what: str) -> Layer:
        """Read what the settings show from a run's files.

        Args:
            run: as it is on disk now: a listing may have skipped its hashes.
            settings: what is laid over its frames.
            what: that it is for, in a word.

        Raises:
            ExportError: the run has no routing, no recorded attention, or no such step, expert or word.
            prophy.runs.record.RunError: the run is damaged.
        """
        if settings.mode == "words" or settings.mode == "looks":
            if (attention := run.attention()) is None:
                raise ExportError(
                    f"what the backbone attends to was not recorded for run {run.id}: make it again with that asked for"
                )
            return cls._of_attention(attention, settings)
        if (trace := run.trace()) is None:
            raise ExportError(
                f"run {run.id} was made without a branch, so there is no routing for the {what}: try a zip"
            )
        return cls._of_routing(trace, settings.mode, settings)

    @classmethod
    def _of_routing(cls, trace: RoutingTrace, mode: OverlayMode, settings: OverlaySettings) -> Layer:
        step = settings.kept_step(trace)
        when = "over all denoising steps"
        if mode != "entropy":
            when = f"denoising step {trace.step_numbers[step]} of {trace.steps}"
        return cls(
            routing_tint(trace, mode, index=settings.index, step=step, opacity=settings.opacity),
            (trace.prompt, f"{_CAPTIONS[mode]}, {when}"),
            legend_entries(trace, mode, index=settings.index, step=step),
        )

    @classmethod
    def _of_attention(cls, attention: AttentionTrace, settings: OverlaySettings) -> Layer:
        kept = settings.recorded_step(attention)
        opacity = {} if settings.opacity is None else {"opacity": settings.opacity}
        if settings.region is None:
            word = settings.index or 0
            levels, peak = attention.word_maps[kept, :, word].reshape(attention.grid.shape), attention.word_peaks[word]
            when = f"denoising step {attention.steps[kept]} of {attention.total_steps}"
            caption = f"How much each token attends to “{attention.words[word]}”, {when}"
        else:
            latent, *sides = settings.region
            rows, columns = (sides[0], sides[1]), (sides[2], sides[3])
            shares = attention.attended_from_region(latent, rows, columns)
            peak = shares.max()
            cells = np.round(255 * shares / max(peak, 1e-9)).astype(np.uint8)
            levels = cells.ravel()[attention.cells.of_token].reshape(attention.grid.shape)
            shown_at = attention.grid.video_frames(latent)
            caption = f"Where {_region_text(rows, columns, shown_at)}, over the recorded denoising steps"
        scale = level_entry(f"0 to {100 * peak:.2g} % of a token's attention")
        return cls(level_tint(levels, **opacity), (attention.prompt, caption), [scale])

    def over(self, frames: np.ndarray, *, legend: bool) -> np.ndarray:
        """Every frame with the layer over it, uint8 RGB (F, H, W, 3), and the legend beneath."""
        laid = self.tint.over(frames)
        if not legend:
            return laid
        beneath = self.legend(laid.shape[2])
        return np.concatenate([laid, np.broadcast_to(beneath, (len(laid), *beneath.shape))], axis=1)

    def legend(self, width: int) -> np.ndarray:
        """The strip beneath a picture of a width, uint8 RGB."""
        return strip(self.entries, width, headings=self.headings, text_px=max(9, round(0.57 * width**0.5)))


def _place(step: int | None, numbers: tuple[int, ...] | list[int], total: int) -> int:
    """Of a step's number among those kept, its place; the last one's for None."""
    if step is None or step in numbers:
        return len(numbers) - 1 if step is None else numbers.index(step)
    if step > total:
        raise ExportError(f"the run has no denoising step {step}: use 1 to {total}")
    near = [max((n for n in numbers if n < step), default=None), min((n for n in numbers if n > step), default=None)]
    use = " or ".join(str(n) for n in near if n is not None)
    raise ExportError(f"step {step} was not kept, only {len(numbers)} of {total} were: use {use}")


def _is_region(region: object) -> bool:
    if not isinstance(region, list | tuple) or len(region) != 5:
        return False
    if not all(type(n) is int and 0 <= n < MAX_SIDE for n in region):
        return False
    return region[1] <= region[2] and region[3] <= region[4]


def _region_text(rows: tuple[int, int], columns: tuple[int, int], shown_at: range) -> str:
    """Whose attention it is, in words; frames are counted from 1, as on the page."""
    frames = "frame 1" if len(shown_at) == 1 else f"frames {1 + shown_at[0]}–{1 + shown_at[-1]}"
    if rows[0] == rows[1] and columns[0] == columns[1]:
        return f"the token at row {rows[0]}, column {columns[0]}, {frames} looks"
    return f"the tokens of rows {rows[0]}–{rows[1]}, columns {columns[0]}–{columns[1]}, {frames} look"
