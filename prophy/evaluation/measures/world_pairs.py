"""Pairs of the synthetic worlds for likelihood preference: the same scene, looks and caption, lawful and not."""

from __future__ import annotations

from collections.abc import Iterator

from prophy.evaluation.measures.laws import asked_clips
from prophy.evaluation.measures.preference import Pair
from prophy.worlds import Stage, sample_clip
from prophy.worlds.scope import SCOPE


def clock_pairs(split: str, clips: int, phenomena: tuple[str, ...] = SCOPE, stage: Stage = Stage()) -> Iterator[Pair]:
    """A lawful clip of one phenomenon, and the same scene by a clock that obeys no law.

    Raises:
        ValueError: an unknown split, or one without clips of one phenomenon.
    """
    for one in asked_clips(split, clips, phenomena, shown=1):
        valid, impossible = (
            sample_clip(one.scene, split, phenomena, stage, lawful=lawful).frames for lawful in (True, False)
        )
        (event,) = one.scenario.events
        law = f"{event.phenomenon}, {event.variant}: time"
        yield Pair(f"{split} {one.scene}", law, one.prompt, valid, impossible, event.phenomenon)
