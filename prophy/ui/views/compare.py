"""The compare view: two runs of one length in one player, with the routing of each and the difference of both.

Swapping the sides, the layouts and the overlays ask the server nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import gradio as gr
import numpy as np

from prophy.catalogue.experts import ExpertShares
from prophy.routing.distance import pixel_difference, routing_difference
from prophy.runs.store import Run
from prophy.ui.views.component import component
from prophy.ui.views.routing import RunView, base64_of


@dataclass(frozen=True)
class CompareView:
    """What the compare view shows.

    Attributes:
        a: one run, as the routing view reads it; its routing is None for a run made without a branch.
        b: the other.
        labels: for each side, what sets it apart, in a few words ("branch off"); empty for nothing.
        difference: base64 of uint8 (T, H, W), 255 is 1: Jensen-Shannon distance between the two runs' experts at every
            token, over all denoising steps. None if a side has no routing.
        pixels: mean absolute difference of the two pictures, 0 to 1, for each video frame.
    """

    a: RunView
    b: RunView
    labels: tuple[str, str]
    difference: str | None
    pixels: list[float]

    @classmethod
    def of(
        cls, a: Run, b: Run, labels: tuple[str, str] = ("", ""), measured: Sequence[ExpertShares | None] = (None, None)
    ) -> CompareView:
        """Read two runs' files.

        Args:
            a, b: runs of one length, rate and size. That seed and noise are the same is the caller's business; the view
                names both seeds.
            labels: see the attribute.
            measured: what the experts of each side's model were measured to do.

        Raises:
            ValueError: the runs differ in frames, fps, size, token grid or number of experts.
            prophy.runs.record.RunError: a video or a routing is broken.
            OSError: a video cannot be read.
        """
        _check_pair(a, b)
        ours, theirs = a.trace(), b.trace()
        difference = None
        if ours is not None and theirs is not None:
            difference = base64_of(np.round(255 * routing_difference(ours, theirs)))
        return cls(
            a=RunView.of(a, ours, measured=measured[0]),
            b=RunView.of(b, theirs, measured=measured[1]),
            labels=labels,
            difference=difference,
            pixels=[round(float(share), 5) for share in pixel_difference(a.clip().frames, b.clip().frames)],
        )

    def as_json(self) -> dict:
        """The component's value."""
        return asdict(self)


def compare_view(export_run: Callable[[object], dict[str, str]] | None = None) -> gr.HTML:
    """The component. Its value is :meth:`CompareView.as_json`, or None for an invitation to make two runs.

    Its event ``copy`` ("Copy A to the form") carries ``{"id": the run's on side A}``; ``swap`` comes after the sides
    have changed places; ``revisit`` carries ``{"a": run id, "b": run id}``: to show the two that the visitor's browser
    went back to.

    Args:
        export_run: gives a visitor a file of both; see :func:`routing_view`. None: there are no files.
    """
    scripts = ("routing.js", "parts.js", "stacked_bars.js", "compare.js", "download.js", "compare_view.js")
    functions = [] if export_run is None else [export_run]
    return component("compare_view", scripts, server_functions=functions)


def _check_pair(a: Run, b: Run) -> None:
    ours, theirs = a.record.settings, b.record.settings
    for what, names in (("frames", ("frames",)), ("frames a second", ("fps",)), ("pixels", ("width", "height"))):
        sizes = ["×".join(f"{settings[name]:g}" for name in names) for settings in (ours, theirs)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"A has {sizes[0]} {what} and B {sizes[1]}: compare runs of one length, rate and size")
