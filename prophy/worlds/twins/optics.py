"""Impossible twins of optics."""

from __future__ import annotations

import numpy as np

from prophy.worlds.optics import FogBeam, GlassBeam, MirrorBeam, NeonLamp, RippleTank
from prophy.worlds.stage import FLOOR
from prophy.worlds.twins.register import Rng, changing_pace, twin


def _bulging(path: np.ndarray, sideways: tuple[float, float], parts: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Bend both rays of a path ``(3, 2)`` so far to the right at most.

    Of each ray the part bulges that lies between two heights above or below where they meet. It is the middle of what
    is seen of the ray, and the bulge is alike on both sides of its own middle: so the straight line through the ray
    keeps its angle.
    """
    rays = []
    for far, start, end, (near, last) in zip(sideways, path[:-1], path[1:], parts, strict=True):
        ray = start + (end - start) * np.linspace(0, 1, 49)[:, None]
        bent = np.clip((np.abs(ray[:, 1] - path[1, 1]) - near) / (last - near), 0, 1)
        ray[:, 0] += far * (1 - np.cos(2 * np.pi * bent)) / 2
        rays.append(ray)
    return np.concatenate([rays[0], rays[1][1:]])


def _lead(light: MirrorBeam | GlassBeam, path: np.ndarray) -> None:
    """Send the light along another path ``(n, 2)``."""
    light.state["path"] = np.broadcast_to(path, (len(light.times), *path.shape))


@twin(MirrorBeam, "angle in = angle out", "the beam leaves the mirror much more steeply than it came")
def _steeper(light: MirrorBeam, rng: Rng) -> None:
    path, angle = light.state["path"].copy(), float(light.state["angle_in"])
    out = angle * rng.uniform(0.45, 0.65)
    path[2, 0] = path[1, 0] + (path[2, 0] - path[1, 0]) * np.tan(out) / np.tan(angle)
    _lead(light, path)
    light.state["angle_out"] = np.array(out)


@twin(MirrorBeam, "straight rays", "both rays bulge in empty air")
def _bent(light: MirrorBeam, rng: Rng) -> None:
    path = light.state["path"]
    far = rng.uniform(2.4, 2.9) * rng.choice((-1, 1))
    part = (5.0, path[1, 1] - path[0, 1] - 3)  # of both rays the same: what is left of a bias, both angles share
    _lead(light, _bulging(path, (-far, far), (part, part)))


@twin(GlassBeam, "bends towards the normal", "the beam goes straight through, as if there were no glass")
def _unbent(light: GlassBeam, rng: Rng) -> None:
    path, block = light.state["path"].copy(), light.vessel(light.region)
    index = rng.uniform(1.0, 1.12)
    inside = np.arcsin(np.sin(float(light.state["angle_in"])) / index)
    depth = min(FLOOR - light.top, (block.width / 2 - 1.5) / np.tan(inside))
    path[2] = path[1] + np.array([np.sign(path[2, 0] - path[1, 0]) * np.tan(inside), 1.0]) * depth
    _lead(light, path)
    light.state |= {"angle_out": np.array(inside), "index": np.array(index)}


@twin(GlassBeam, "straight rays", "both rays bulge, in the air and in the glass")
def _bent_in_glass(light: GlassBeam, rng: Rng) -> None:
    path = light.state["path"]
    far = rng.uniform(2.6, 3.2) * rng.choice((-1, 1))
    outer, inner = np.abs(np.diff(path[:, 1]))
    parts = (3.0, outer - 3), (5.0, inner - 3)  # in the glass from below its bright edge
    _lead(light, _bulging(path, (far, far), parts))


@twin(FogBeam, "dimmer at the far end", "the farther the beam is, the brighter")
def _gathering(light: FogBeam, rng: Rng) -> None:
    width = light.region.width
    light.state["extinction"] = np.array(-np.log(rng.uniform(2.2, 2.8)) / (0.8 * width - 8))


@twin(RippleTank, "two equal sources", "the waves of one source are hardly there")
def _unequal(tank: RippleTank, rng: Rng) -> None:
    weak = rng.uniform(0.1, 0.25)
    tank.strengths = (weak, 1.0) if rng.random() < 0.5 else (1.0, weak)


twin(NeonLamp, "one period", "the tube blinks faster and faster, or slower and slower")(changing_pace)
