"""The register of trackers, the law errors of a clip, and which of its laws it obeys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prophy.evaluation.judges.laws import TrackLost
from prophy.evaluation.judges.trackers.view import View, view_of
from prophy.worlds import Placed, Stage


@dataclass(frozen=True)
class Law:
    """One law that a scene obeys.

    Attributes:
        name: what is compared.
        tolerance: the largest error at which the law counts as obeyed; on real renders nearly all clips lie below it.
        error: what the error is a share of.
    """

    name: str
    tolerance: float
    error: str


Tracker = Callable[[View], dict[str, float]]

#: (phenomenon, variant) -> its laws, and what measures them
LAWS: dict[tuple[str, str], tuple[Law, ...]] = {}
_TRACKERS: dict[tuple[str, str], Tracker] = {}


def tracker(phenomenon: str, variant: str, *laws: Law) -> Callable[[Tracker], Tracker]:
    """Register what measures a scene's laws."""

    def register(function: Tracker) -> Tracker:
        LAWS[phenomenon, variant], _TRACKERS[phenomenon, variant] = laws, function
        return function

    return register


def law_errors(frames_FHWC: np.ndarray, event: Placed, setting: str, stage: Stage = Stage()) -> dict[str, float]:
    """The law errors of one event of a clip, by law; 0 is lawful.

    Args:
        frames_FHWC: uint8, a whole clip.
        event: what the prompt asks for, and where.
        setting: of the stage.
        stage: size, length and rate of the clip.

    Raises:
        TrackLost: the event cannot be followed, or does not happen.
        ValueError: frames of another size, or a scene without a tracker.
    """
    key = (event.phenomenon, event.variant)
    if key not in _TRACKERS:
        raise ValueError(f"no tracker follows {event.phenomenon} ({event.variant}): use one of {sorted(_TRACKERS)}")
    view = view_of(frames_FHWC, event, setting, stage)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = _TRACKERS[key](view)
    if errors.keys() != {law.name for law in LAWS[key]}:
        raise ValueError(f"the tracker of {event.variant} measures {sorted(errors)}: register just these")
    return errors


def obeyed(frames_FHWC: np.ndarray, event: Placed, setting: str, stage: Stage = Stage()) -> dict[str, bool]:
    """Whether one event of a clip obeys each of its laws; one that cannot be followed obeys none.

    Args:
        frames_FHWC, event, setting, stage: as for :func:`law_errors`, which raises the same ``ValueError``.
    """
    try:
        errors = law_errors(frames_FHWC, event, setting, stage)
    except TrackLost:
        errors = {}
    laws = LAWS[event.phenomenon, event.variant]
    return {law.name: errors.get(law.name, np.inf) <= law.tolerance for law in laws}  # not a number is not obeyed
