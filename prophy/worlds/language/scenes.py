"""The words for every scene of the worlds, by phenomenon and variant."""

from prophy.worlds.language.dynamics import DYNAMICS
from prophy.worlds.language.optics import OPTICS
from prophy.worlds.language.scene import Scene
from prophy.worlds.language.thermodynamics import THERMODYNAMICS

SCENES: dict[tuple[str, str], Scene] = {**DYNAMICS, **THERMODYNAMICS, **OPTICS}
