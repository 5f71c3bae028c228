"""Pairs of the synthetic worlds for likelihood preference: the same scene, looks and caption, one law broken."""

from __future__ import annotations

from collections.abc import Iterator

from prophy.evaluation.measures.preference import Pair
from prophy.evaluation.prompts.held_out import FIRST_SCENE
from prophy.worlds import WorldSet, twin_pairs


def law_pairs(worlds: WorldSet, count: int) -> Iterator[Pair]:
    """``count`` held-out pairs for every law of every scene; see :func:`~prophy.worlds.pairs.twin_pairs`.

    Raises:
        ValueError: phenomena without a world, or that the split has no clips of.
    """
    for twins in twin_pairs(worlds.split, count, worlds.phenomena, worlds.stage, worlds.words, FIRST_SCENE):
        clip, event = twins.possible, twins.event
        law = f"{event.phenomenon}, {event.variant}: {twins.broken.law}"
        frames = clip.frames, twins.impossible.frames
        yield Pair(f"{worlds.split} {clip.seed}", law, clip.caption, *frames, event.phenomenon)
