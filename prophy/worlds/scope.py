"""The phenomena that the embedded model knows."""

from __future__ import annotations

#: What the embedded model knows. The other worlds wait for a longer training: reliability before breadth.
SCOPE = (
    "collision",
    "elastic_motion",
    "liquid_motion",
    "gas_motion",
    "deformation",
    "melting",
    "combustion",
    "explosion",
    "reflection",
    "refraction",
)
