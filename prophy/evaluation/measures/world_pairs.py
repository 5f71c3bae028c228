"""Pairs of the synthetic worlds for likelihood preference: the same scene, looks and caption, one law broken."""

from __future__ import annotations

from collections.abc import Iterator

from prophy.evaluation.measures.preference import Pair
from prophy.evaluation.prompts.held_out import FIRST_SCENE
from prophy.worlds import Stage, twin_pairs
from prophy.worlds.scope import SCOPE


def law_pairs(split: str, count: int, phenomena: tuple[str, ...] = SCOPE, stage: Stage = Stage()) -> Iterator[Pair]:
    """``count`` held-out pairs for every law of every scene; see :func:`~prophy.worlds.pairs.twin_pairs`.

    Raises:
        ValueError: unknown split, or phenomena without a world.
    """
    for twins in twin_pairs(split, count, phenomena, stage, first=FIRST_SCENE):
        clip, event = twins.possible, twins.event
        law = f"{event.phenomenon}, {event.variant}: {twins.broken.law}"
        frames = clip.frames, twins.impossible.frames
        yield Pair(f"{split} {clip.seed}", law, clip.caption, *frames, event.phenomenon)
