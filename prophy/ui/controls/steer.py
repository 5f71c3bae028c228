"""The steering panel: the branch's strength, one row of knobs for each expert, and cells to paint where one is forced.

Its event ``steer`` carries ``{"steering": document}``, which :meth:`prophy.routing.steering.Steering.from_json` reads.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import gradio as gr
import numpy as np

from prophy import phenomena
from prophy.catalogue.experts import ExpertShares
from prophy.grid import TEMPORAL
from prophy.routing.steering import Steering
from prophy.routing.trace import RoutingTrace
from prophy.runs.overlay import SHOWN_PEAK, expert_colour
from prophy.ui.views.component import component

_MOST_OF_IT = 0.6  # of the weight on a phenomenon's tokens: the experts that a preset mutes hold this much together


@dataclass(frozen=True)
class Preset:
    """A steering to begin with, by a name that says what it does."""

    name: str
    steering: dict[str, Any]


@dataclass(frozen=True)
class SteerView:
    """What the panel shows.

    Attributes:
        experts: colours of the refinement experts.
        semantic: how many semantic experts.
        grid: latent frames, token rows, token columns of the clip to steer.
        names: what each refinement expert was measured to do; empty where nothing dominates or nobody measured.
        shares: of each refinement expert, 0 to 1: of the clip's tokens, or as measured; empty where neither is known.
        presets: steerings to choose from.
        poster: data address of a picture to paint on; empty for none.
        steering: JSON of what to begin with.
        temporal: video frames in a latent frame after the first.
    """

    experts: list[str]
    semantic: int
    grid: tuple[int, int, int]
    names: list[str]
    shares: list[float]
    presets: list[Preset]
    poster: str = ""
    steering: dict[str, Any] = field(default_factory=dict)
    temporal: int = TEMPORAL

    @classmethod
    def of(
        cls, semantic: int, refinement: int, grid: tuple[int, int, int], measured: ExpertShares | None = None
    ) -> SteerView:
        """The panel of a model with so many experts, nothing steered.

        Args:
            semantic, refinement: how many experts.
            grid: of its clips.
            measured: what the refinement experts were measured to do.
        """
        return cls(
            experts=[expert_colour(e) for e in range(refinement)],
            semantic=semantic,
            grid=grid,
            names=[""] * refinement if measured is None else list(measured.names),
            shares=[] if measured is None else list(measured.used),
            presets=_whole_branch(refinement),
        )

    def on_run(
        self, steering: Steering, poster: str, trace: RoutingTrace | None, measured: ExpertShares | None = None
    ) -> SteerView:
        """The panel over a run: its picture, its steering, its shares, and presets for the phenomena it shows.

        Args:
            steering: of the run.
            poster: its picture.
            trace: its routing; None without a branch.
            measured: what its model's experts were measured to do.
        """
        view = replace(self, poster=poster, steering=steering.to_json())
        if trace is None or trace.num_experts != len(self.experts):
            return view
        view = replace(view, grid=trace.grid.shape)  # the run may be of another size than the model's own
        shares = [round(float(share), 4) for share in trace.expert_shares().mean(0)]
        return replace(view, shares=shares, presets=[*muting(trace, measured), *self.presets])

    def as_json(self) -> dict:
        """The component's value."""
        return asdict(self)


def muting(trace: RoutingTrace, measured: ExpertShares | None = None, step: int = -1) -> list[Preset]:
    """For each phenomenon of a clip, the strongest first: mute the experts that act on it.

    They are those named by it, if any were measured to be; else those that together hold most of the weight on its
    tokens, which are the ones where its map is above half of its peak.
    """
    maps_NP = trace.phenomenon_maps[step].astype(np.float32)
    peaks_P = maps_NP.max(0)
    presets = []
    for p in np.argsort(-peaks_P, kind="stable"):
        phenomenon = phenomena.PHENOMENA[p]
        if peaks_P[p] < SHOWN_PEAK or (measured is not None and phenomenon.id not in measured.learnt):
            continue
        named = [] if measured is None else [e for e, name in enumerate(measured.of) if name == phenomenon.id]
        experts = named or _most_weight(trace, maps_NP[:, p] > peaks_P[p] / 2, step)
        if len(experts) < trace.num_experts:
            steering = Steering(refinement=dict.fromkeys(experts, 0.0))
            presets.append(Preset(f"Mute {phenomenon.name}", steering.to_json()))
    return presets


def steer_panel(value: SteerView | None) -> gr.HTML:
    """The component. Its value is :meth:`SteerView.as_json`, or None for nothing to steer."""
    return component(
        "steer_panel",
        ("routing.js", "parts.js", "steering.js", "steer_panel.js"),
        None if value is None else value.as_json(),
    )


def _whole_branch(refinement: int) -> list[Preset]:
    inverted = Steering(refinement=dict.fromkeys(range(refinement), -1.0))
    return [
        Preset("Invert every expert", inverted.to_json()),
        Preset("Half the branch", Steering(strength=0.5).to_json()),
        Preset("Twice the branch", Steering(strength=2.0).to_json()),
    ]


def _most_weight(trace: RoutingTrace, tokens_N: np.ndarray, step: int) -> list[int]:
    """The fewest experts that together hold most of the weight on some tokens."""
    weights_E = np.zeros(trace.num_experts)
    np.add.at(weights_E, trace.topk_ids[step][tokens_N], trace.topk_weights[step][tokens_N].astype(float))
    order = np.argsort(-weights_E, kind="stable")
    enough = int(np.searchsorted(np.cumsum(weights_E[order]), _MOST_OF_IT * weights_E.sum())) + 1
    return sorted(int(e) for e in order[:enough])
