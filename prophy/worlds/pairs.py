"""Pairs of a possible and an impossible clip that look alike: for measuring which of the two a model finds likelier.

LikePhys (arXiv 2510.11512) compares the denoising losses of such pairs; here the pairs are exact, one law at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prophy.phenomena import IDS
from prophy.worlds.event import EVENTS
from prophy.worlds.language import FIRST, Grammar
from prophy.worlds.placed import Placed
from prophy.worlds.sample import WorldClip, sample_clip, sample_scenario
from prophy.worlds.stage import Stage
from prophy.worlds.twins import TWINS, Broken

Scene = tuple[str, str]  #: phenomenon and variant


@dataclass(frozen=True)
class TwinPair:
    """A clip and its impossible twin: one caption, one scenario, the same looks and parameters.

    Attributes:
        possible: the lawful clip.
        impossible: the same, breaking ``broken``; an event that does not is pixel by pixel the lawful one.
        broken: the law.
    """

    possible: WorldClip
    impossible: WorldClip
    broken: Broken

    @property
    def event(self) -> Placed:
        """The event that breaks its law."""
        return self.possible.scenario.events[self.broken.event]


def showing(
    split: str, count: int, phenomena: tuple[str, ...] = IDS, grammar: Grammar = FIRST, first: int = 0
) -> dict[Scene, list[tuple[int, int]]]:
    """For every scene of the phenomena the first ``count`` clips that show it: their seeds, and which event it is.

    Args:
        split: of the worlds.
        count: clips of each scene.
        phenomena: ids that the clips are drawn from; in the split ``combinations`` each must be in a held-out pair.
        grammar: as for :func:`~prophy.worlds.sample.sample_clip`.
        first: seed to begin with.

    Raises:
        ValueError: unknown split, or phenomena without a world.
    """
    found: dict[Scene, list[tuple[int, int]]] = {
        (phenomenon, kind.variant): [] for phenomenon in phenomena for kind in EVENTS.get(phenomenon, ())
    }
    seed = first
    while any(len(clips) < count for clips in found.values()):
        for i, event in enumerate(sample_scenario(seed, split, phenomena, grammar)[0].events):
            clips = found[event.phenomenon, event.variant]
            if len(clips) < count:
                clips.append((seed, i))
        seed += 1
    return found


def twin_pairs(
    split: str,
    count: int,
    phenomena: tuple[str, ...] = IDS,
    stage: Stage = Stage(),
    grammar: Grammar = FIRST,
    first: int = 0,
) -> Iterator[TwinPair]:
    """``count`` pairs for every law of every scene: scene by scene, clip by clip, law by law.

    Args:
        split, count, phenomena, grammar, first: see :func:`showing`.
        stage: size, length and rate of the clips.

    Raises:
        ValueError: unknown split, or phenomena without a world.
    """
    for scene, clips in showing(split, count, phenomena, grammar, first).items():
        for seed, event in clips:
            possible = sample_clip(seed, split, phenomena, stage, grammar=grammar)
            for law in TWINS[scene]:
                broken = Broken(law, event)
                impossible = sample_clip(seed, split, phenomena, stage, grammar=grammar, broken=broken)
                yield TwinPair(possible, impossible, broken)
