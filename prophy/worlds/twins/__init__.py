"""Impossible twins: for every law of every scene, what breaks just that law and leaves its others alone.

A twin is a clip's scene once more: the same parameters, looks, colours and place; only its state is changed after it
was simulated, before it is painted, so that masks and states are of what is drawn. Where two laws bind one another
(what is pressed flatter at a constant area gets wider), the one is broken within what the trackers allow the other.
Ours; pairs of a possible and an impossible clip with the same looks are asked for by LikePhys (arXiv 2510.11512).

The laws are those that :mod:`prophy.evaluation.judges.trackers` measures, by their names.
"""

from prophy.worlds.twins import dynamics, optics, thermodynamics  # noqa: F401 (registers the twins)
from prophy.worlds.twins.register import TWINS, Broken, Twin, twin_of

__all__ = ["TWINS", "Broken", "Twin", "twin_of"]
